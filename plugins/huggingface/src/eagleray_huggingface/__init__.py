"""huggingface plugin of eagleray. A skeleton: no entry point, so no framework is offered."""

__version__ = "0.1.0"
