"""Assessment: what an attack breaks, what the purifier mends, and how sure that is."""

from jernih.assess.plan import AssessmentPlan
from jernih.assess.report import Background, console_table, write_report
from jernih.assess.result import Assessment
from jernih.assess.run import assess

__all__ = [
    "Assessment",
    "AssessmentPlan",
    "Background",
    "assess",
    "console_table",
    "write_report",
]
