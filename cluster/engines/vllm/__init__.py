"""vLLM: the provider, its arguments, the engine, and the checks of grammars before it runs."""
