"""As vLLM lays it out."""

import os


def get_ip() -> str:
    """vLLM's own asks the way to the internet where this is not set."""
    return os.environ["VLLM_HOST_IP"]
