"""Encoder weights: name -> files -> tensors in one layout. The only place that opens checkpoints."""

from ad_dinov3.weights.load import BackboneWeights as BackboneWeights
from ad_dinov3.weights.load import load_backbone_weights as load_backbone_weights
from ad_dinov3.weights.resolve import WeightSource as WeightSource
from ad_dinov3.weights.resolve import resolve_weights as resolve_weights
