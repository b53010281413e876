"""Is the model what it was, and is a result the same in any order?"""
