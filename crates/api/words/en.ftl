# What the API says to people when something goes wrong, in English. ko.ftl says the same in Korean.
#
# A text is named after its code: `not_author`, or `invalid_query-unknown` where one code has several texts. `rule-…` are
# the rules that a field can break. A name stands in both files or in neither, with the same gaps: a test compares them.

## What the board refuses

# $fields: one validation_failed-field for each broken rule, separated by "; "
validation_failed = { $fields }.
# $pointer: where the field is, such as /title, or its name in a message; $rule: one of the rules below
validation_failed-field = { $pointer } { $rule }
unauthenticated = Sign in first: POST /api/v1/auth/token, then send the access token.
unauthenticated-call = Sign in first: AuthService.SignIn, then send the access token in the metadata, as authorization.
invalid_token = The access token is not valid, or no longer; get a new one with the refresh token or sign in again.
invalid_credentials = The current password is not this one.
invalid_credentials-sign_in = E-mail and password do not match an account.
invalid_refresh_token = The refresh token is not valid, or no longer; sign in again.
invalid_mail_token = This token from a letter is not good, or no longer: ask for a new letter.
account_suspended = This account is suspended: it may read, and delete itself.
not_author = Only its author or a moderator may change this.
not_admin = Only an administrator may do this.
own_account = Administrators do not change their own role or suspend themselves; another one may.
qna_not_found = There is no such QnA, or it was deleted.
comment_not_found = There is no such comment, or it was deleted.
image_not_found = There is no such image, or it was deleted.
user_not_found = There is no such user, or the account was deleted.
email_taken = Another account has this e-mail; sign in or use another one.
idempotency_key_reused = This Idempotency-Key came with something else before: use a new key for a new request.
idempotency_key_in_use = The first request with this Idempotency-Key is still running; ask again.
version_mismatch = It was changed since you read it: read it again, then send your change with the new ETag.
invalid_cursor = The cursor does not belong to this list and order: start again without one.
not_an_image = The file is no PNG, JPEG, WebP or GIF; its content counts, not its name.
image_animated = Of PNG and WebP only still images are taken; send an animation as a GIF.
image_broken = The image is broken: it cannot be decoded to its end.
image_too_large = The image has more than { $mebibytes } MiB, or would become much larger when it is written anew.
# $side: pixels; $mega, $frames: millions of pixels
image_too_many_pixels = An image may have { $side } pixels a side and { $mega } megapixels (a PNG of 16 bits half of it), an animation { $frames } megapixels in all its frames.
too_many_images = The comment has { $max } images already.
image_quota_exceeded = Your images fill your quota: delete some of them first.
# $limit: its name, as in RateLimit-Policy
rate_limited = That was too often: try again in { $seconds } s (the limit is "{ $limit }").
busy = Too much is going on at once; try again.
database_unavailable = The database cannot be reached right now; try again.
storage_unavailable = Images cannot be stored or read right now; try again.
internal_error = Something went wrong here; the request id helps us find it.

## What cannot be read

# $reason: the parser's own words, which are English
malformed_json = The body is not a JSON object: { $reason }.
malformed_json-empty = The body is not a JSON object: it is empty.
# $reason: the connection's own words, which are English
malformed_json-broken_off = The body is not whole: it broke off ({ $reason }).
malformed_form = The form cannot be read: { $name } stands there twice.
# $reason: the parser's own words, which are English
malformed_form-parts = The form cannot be read: { $reason }.
malformed_form-breaks_off = The form cannot be read: it breaks off.
malformed_message = The message cannot be read: it is none that this method takes.
invalid_path = "{ $segment }" in the path is not an id: ids are whole numbers.
invalid_query-repeated = The parameter { $name } stands there more than once.
invalid_query-not_an_integer = The parameter { $name } must be a whole number, not "{ $value }".
# $known: such as cursor, limit
invalid_query-unknown = There is no parameter { $name } here, only { $known }.
invalid_header-if_match = If-Match takes entity tags in double quotes, as ETag gave them, or *; not { $tag }.
invalid_header-if_match_bytes = If-Match holds bytes that are no text.
# $reason: what CORS says, which is English
invalid_header-cors = A page may not call here in this way: { $reason }.
invalid_header-idempotency_key = Idempotency-Key takes 1 to { $max } visible ASCII characters, once.
route_not_found = There is nothing at this path; /docs lists what there is.
# $methods: such as GET, HEAD, POST
method_not_allowed = This path answers { $methods }.
target_too_long = The path and query have more than { $limit } bytes.
head_too_large = The headers have more than { $limit } bytes.
body_too_large = The body has more than { $limit } bytes.
body_timeout = The body took too long to arrive.
# $wanted: a media type
unsupported_media_type = Send the body as { $wanted }, without a content encoding.
range_not_satisfiable = The range lies behind the end: there are { $length } bytes.
too_slow = This took longer than the server gives a request; try again.
too_slow-write = This took longer than the server gives a request, and it is not known whether the change was made: look first, or send it again with the same Idempotency-Key.

## Rules that a field can break

rule-required = is required
rule-unknown_field = is not a known field
rule-unknown_field-nearest = is not a known field (did you mean { $nearest }?)
rule-not_a_string = must be a string
rule-not_an_integer = must be a whole number
rule-not_a_boolean = must be true or false
rule-too_short =
    { $min ->
        [1] must not be empty
       *[other] must have at least { $min } characters
    }
rule-too_long = must have at most { $max } characters
rule-out_of_range = must be between { $min } and { $max }
rule-blank = must hold something to see
rule-control_character = must not hold control characters other than newline and tab
rule-not_an_email = must be an e-mail address
rule-not_visible_ascii = must hold visible ASCII characters alone
rule-not_an_entity_tag = must be an entity tag, as it was given out
# $allowed: the words, separated by commas
rule-not_one_of = must be one of { $allowed }
