"""Did the edit take, and only there?"""
