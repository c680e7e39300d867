"""`llmhpo`, and `python -m llmhpo`."""

import sys


def main() -> None:
    """Entry point. The chat is on the screen before the rest is imported, which takes seconds on a busy machine."""
    if sys.argv[1:2] == ["chat"] and "--help" not in sys.argv:
        from llmhpo.chat.start import main as chat

        chat()
    else:
        from llmhpo.cli import main as all_others

        all_others()


if __name__ == "__main__":
    main()
