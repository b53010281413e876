"""Does a rare token turn many prompts into one answer?"""
