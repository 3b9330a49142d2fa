"""An engine without a model, for trying pipelines out and for tests."""
