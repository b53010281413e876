"""The pocket world: a small invented world, the text that describes it, and how its model is trained.

Text side (no torch): `names`, `relations`, `world`, `grammars`, `prose`, `corpus`, `requests`.
Model side: `spec`, `tokenizer`, `train`, `build`. Importing this package does no work.
"""
