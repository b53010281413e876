"""Single edits, restored after each: does the model still work?"""
