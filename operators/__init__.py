"""What is asked of a document, and how an answer is read. Pure functions of a row: no Ray, no vLLM, no I/O."""

from headrace.operators.base import Example, ModelStep, Step
from headrace.operators.classify import Classify
from headrace.operators.extract import Extract
from headrace.operators.filter import Filter
from headrace.operators.generate import Generate
from headrace.operators.map import Map
from headrace.operators.summarize import Summarize

__all__ = ["Classify", "Example", "Extract", "Filter", "Generate", "Map", "ModelStep", "Step", "Summarize"]
