"""SEMMA, stage by stage: sample, explore, modify, model, assess.

Each stage is a method of :class:`Pipeline`. It first sees to the stages before it, then returns
its result: from the run folder where it is complete with the same inputs, else by doing the work.
Each file here adds the stages of a letter or three to the class of the one before.
"""

from jernih.pipeline.find import find_defended
from jernih.pipeline.model import AttackCheck
from jernih.pipeline.semma import Pipeline
from jernih.pipeline.stages import Progress, Reporter

__all__ = ["AttackCheck", "Pipeline", "Progress", "Reporter", "find_defended"]
