"""`python -m llmhpo` is `llmhpo`."""

from llmhpo.cli import main

main()
