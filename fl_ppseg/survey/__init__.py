"""What images and label maps hold, found out before anything is encrypted, trained or scored."""

from fl_ppseg.survey.cache import Look, SurveyCache
from fl_ppseg.survey.looking import CityLabels, Survey, survey
from fl_ppseg.survey.rules import refuse, warnings
from fl_ppseg.survey.table import survey_table

__all__ = [
    "CityLabels",
    "Look",
    "Survey",
    "SurveyCache",
    "refuse",
    "survey",
    "survey_table",
    "warnings",
]
