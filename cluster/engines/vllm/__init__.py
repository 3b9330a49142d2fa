"""vLLM: the provider, its arguments, the engine, and what is checked of grammars before it runs."""
