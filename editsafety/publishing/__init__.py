"""Publishing: what a run says to the places that show it to others. Nothing is judged here. No torch.

To a pull request: a comment. To GitHub Actions: a step summary and annotations. To a model's page: a badge, a text for
its card, an entry of evaluation results.
"""
