"""Prints what Python's reader of Maildirs finds in the Maildir whose path is on standard input: a
line with the folder and the subject of each message."""

import mailbox
import sys

box = mailbox.Maildir(sys.stdin.read(), create=False)
for message in box:
    print("INBOX", message["subject"])
for name in box.list_folders():
    for message in box.get_folder(name):
        print(name, message["subject"])
