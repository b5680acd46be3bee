"""Settings of a model, and the presets."""

from ad_dinov3.config.methods import AdDinoV3Config as AdDinoV3Config
from ad_dinov3.config.methods import LossConfig as LossConfig
from ad_dinov3.config.methods import MethodConfig as MethodConfig
from ad_dinov3.config.methods import PromptConfig as PromptConfig
from ad_dinov3.config.methods import States as States
from ad_dinov3.config.model import InputConfig as InputConfig
from ad_dinov3.config.model import ModelConfig as ModelConfig
from ad_dinov3.config.model import TrainConfig as TrainConfig
from ad_dinov3.config.model import model_config as model_config
from ad_dinov3.config.model import read_settings as read_settings
from ad_dinov3.config.model import validated as validated
from ad_dinov3.config.presets import PRESETS as PRESETS
from ad_dinov3.config.settings import Settings as Settings
