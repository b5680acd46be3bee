"""Settings of a model, and the presets."""

from ad_dinov3.config.model import METHOD_TITLES as METHOD_TITLES
from ad_dinov3.config.model import InputConfig as InputConfig
from ad_dinov3.config.model import LossConfig as LossConfig
from ad_dinov3.config.model import MethodConfig as MethodConfig
from ad_dinov3.config.model import ModelConfig as ModelConfig
from ad_dinov3.config.model import PromptConfig as PromptConfig
from ad_dinov3.config.model import TrainConfig as TrainConfig
from ad_dinov3.config.model import read_settings as read_settings
from ad_dinov3.config.model import validated as validated
from ad_dinov3.config.presets import PRESETS as PRESETS
from ad_dinov3.config.settings import Settings as Settings
