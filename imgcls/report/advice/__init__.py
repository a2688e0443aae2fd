"""What limits a model, the evidence for it, and what to do; each file has one kind of finding."""

from imgcls.report.advice.finding import Advice
from imgcls.report.advice.ranking import advise

__all__ = ["Advice", "advise"]
