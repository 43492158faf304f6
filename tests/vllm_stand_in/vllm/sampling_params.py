"""As vLLM lays it out."""


class StructuredOutputsParams:
    """TRL imports it for `colocate`."""
