# What letters say. Each text is one paragraph of plain words: the HTML around it is made in letter.rs.
# { $board } is the board's address, { $name } the reader's display name, { $token } the token.

greeting = Hello,
greeting-name = Hello { $name },
token = If you are asked for the token, it is { $token }
expiry = It works once, within 30 minutes. A newer letter of this kind makes it void.
signature = This letter was written by the board at { $board }; nobody reads answers to it.

verify-email-subject = Confirm your e-mail address
verify-email-why = An account at { $board } was given this e-mail address. If the account is yours, confirm the address on this page:
verify-email-otherwise = If you know of no such account, you need not do anything: the address stays unconfirmed.

reset-password-subject = Set a new password
reset-password-why = Somebody asked for a new password for your account at { $board }. If it was you, set it on this page:
reset-password-otherwise = If it was not you, you need not do anything: the old password stays as it is.

email-changed-subject = Your account has another e-mail address
email-changed-why = Your account at { $board } was given another e-mail address. This one belongs to it no longer, and gets no more letters about it.
email-changed-otherwise = If it was not you who changed it, somebody else has got into your account: ask an administrator of the board to help.

password-changed-subject = Your password was changed
password-changed-why = The password of your account at { $board } was changed, and every device was signed out.
password-changed-otherwise = If it was not you who changed it, set a new one at once at { $page } and tell an administrator of the board.
