"""WARP-LCA sparse-coding front-ends for robust image classifiers.

``import warplca.models`` makes its models known to timm, ``timm.create_model("warplca_resnet18")``.
"""

__version__ = "0.1.0"
