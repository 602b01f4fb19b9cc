"""Run a script of a timm checkout with warplca's models: ``timm_script.py train.py --model warplca_resnet18 ...``."""

import runpy
import sys

import warplca.models  # noqa: F401 - makes the models known to timm

sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
