"""From record batches to figures: numbers only, no files, no printing.

summary = summarise(source, Question(window=(10, 50), anchor=Anchor.SENT))
"""

from raybench.analysis.figures import Summary
from raybench.analysis.question import Anchor, Objective, PhaseFilter, Question
from raybench.analysis.source import Source
from raybench.analysis.summary import summarise

__all__ = ["Anchor", "Objective", "PhaseFilter", "Question", "Source", "Summary", "summarise"]
