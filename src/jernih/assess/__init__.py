"""Assessment: what an attack breaks, what the purifier mends, and how sure that is."""

from jernih.assess.detection import DetectionPlan, survey_detection
from jernih.assess.detection_result import DetectionSurvey
from jernih.assess.plan import AssessmentPlan
from jernih.assess.report import Background, console_table, write_report
from jernih.assess.result import Assessment
from jernih.assess.run import assess

__all__ = [
    "Assessment",
    "AssessmentPlan",
    "Background",
    "DetectionPlan",
    "DetectionSurvey",
    "assess",
    "console_table",
    "survey_detection",
    "write_report",
]
