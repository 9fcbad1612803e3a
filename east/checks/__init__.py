"""Is this run what it says it is?"""
