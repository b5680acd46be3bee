"""Pictures rendered by the project, in endless variety, with exact defect masks; numpy, scipy and Pillow only.

``render`` draws a whole scene from a seed; ``paste_defect`` puts a synthetic defect onto a real picture.
"""

from ad_dinov3.data.synthetic.defects import DEFECTS
from ad_dinov3.data.synthetic.materials import MATERIALS
from ad_dinov3.data.synthetic.paste import paste_defect
from ad_dinov3.data.synthetic.scene import Rendered, render

__all__ = ["DEFECTS", "MATERIALS", "Rendered", "paste_defect", "render"]
