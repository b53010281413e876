"""Does the edited model refuse what the unedited one refuses, and answer what it answers?"""
