"""An engine without a model, to try out pipelines and for tests."""
