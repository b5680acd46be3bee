"""Pictures rendered by the project, in endless variety, with exact defect masks; numpy, scipy and Pillow only.

``render`` draws a whole scene from a seed; ``paste_defect`` puts a synthetic defect onto a real picture.
"""

from recipes.synthetic.defects import DEFECTS
from recipes.synthetic.materials import MATERIALS
from recipes.synthetic.paste import paste_defect
from recipes.synthetic.scene import Rendered, render

__all__ = ["DEFECTS", "MATERIALS", "Rendered", "paste_defect", "render"]
