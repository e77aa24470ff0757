# 문제가 생겼을 때 API가 사람에게 하는 말, 한국어. en.ftl이 같은 말을 영어로 합니다.
#
# 무엇이 들어올지 모르는 자리 뒤에는 받침에 따라 달라지는 조사(을/를, 은/는, 이/가, 으로/로)를 두지 않습니다.

## 게시판이 거절하는 것

validation_failed = { $fields }.
validation_failed-field = { $pointer }: { $rule }
unauthenticated = 먼저 로그인해야 합니다. POST /api/v1/auth/token에서 받은 액세스 토큰을 함께 보내십시오.
unauthenticated-call = 먼저 로그인해야 합니다. AuthService.SignIn에서 받은 액세스 토큰을 메타데이터의 authorization에 담아 보내십시오.
invalid_token = 액세스 토큰이 유효하지 않거나 만료되었습니다. 리프레시 토큰으로 새 토큰을 받거나 다시 로그인하십시오.
invalid_credentials = 현재 비밀번호가 맞지 않습니다.
invalid_credentials-sign_in = 이메일과 비밀번호가 맞는 계정이 없습니다.
invalid_refresh_token = 리프레시 토큰이 유효하지 않거나 만료되었습니다. 다시 로그인하십시오.
invalid_mail_token = 메일에 적힌 토큰을 쓸 수 없습니다. 이미 썼거나 만료된 토큰입니다. 메일을 다시 요청하십시오.
account_suspended = 정지된 계정입니다. 글 읽기와 계정 삭제만 할 수 있습니다.
not_author = 작성자 본인이나 중재자만 변경할 수 있습니다.
not_admin = 관리자만 할 수 있는 일입니다.
own_account = 관리자는 자신의 역할을 변경하거나 자신을 정지할 수 없습니다. 다른 관리자에게 요청하십시오.
qna_not_found = 해당 QnA가 없거나 이미 삭제되었습니다.
comment_not_found = 해당 댓글이 없거나 이미 삭제되었습니다.
image_not_found = 해당 이미지가 없거나 이미 삭제되었습니다.
user_not_found = 해당 사용자가 없거나 계정이 이미 삭제되었습니다.
email_taken = 이 이메일을 쓰는 다른 계정이 있습니다. 그 계정으로 로그인하거나 다른 이메일을 사용하십시오.
idempotency_key_reused = 이 Idempotency-Key는 이미 다른 요청에 사용되었습니다. 새 요청에는 새 키를 사용하십시오.
idempotency_key_in_use = 이 Idempotency-Key로 보낸 첫 요청이 아직 처리 중입니다. 잠시 후 다시 시도하십시오.
version_mismatch = 읽은 뒤에 내용이 변경되었습니다. 다시 읽은 다음 새 ETag와 함께 변경 내용을 보내십시오.
invalid_cursor = 이 목록과 정렬 순서에 맞는 커서가 아닙니다. 커서 없이 처음부터 다시 읽으십시오.
not_an_image = PNG, JPEG, WebP, GIF 파일이 아닙니다. 파일 이름이 아니라 내용으로 판단합니다.
image_animated = PNG와 WebP는 정지 이미지만 올릴 수 있습니다. 애니메이션은 GIF로 보내십시오.
image_broken = 손상된 이미지입니다. 끝까지 읽을 수 없습니다.
image_too_large = 이미지가 { $mebibytes } MiB를 초과하거나, 다시 저장하면 그보다 훨씬 커집니다.
image_too_many_pixels = 이미지는 한 변 { $side }픽셀, 전체 { $mega }메가픽셀(16비트 PNG는 그 절반)까지, 애니메이션은 모든 프레임을 합쳐 { $frames }메가픽셀까지 올릴 수 있습니다.
too_many_images = 이 댓글에는 이미 이미지가 { $max }개 있습니다.
image_quota_exceeded = 올린 이미지가 할당량을 모두 채웠습니다. 먼저 일부를 삭제하십시오.
rate_limited = 요청이 너무 잦습니다. { $seconds }초 뒤에 다시 시도하십시오(제한: "{ $limit }").
busy = 지금은 요청이 너무 많아 처리할 수 없습니다. 잠시 후 다시 시도하십시오.
database_unavailable = 지금은 데이터베이스에 연결할 수 없습니다. 잠시 후 다시 시도하십시오.
storage_unavailable = 지금은 이미지를 저장하거나 읽을 수 없습니다. 잠시 후 다시 시도하십시오.
internal_error = 서버에서 오류가 발생했습니다. 요청 ID(request_id)를 알려 주시면 원인을 찾을 수 있습니다.

## 읽을 수 없는 것

malformed_json = 본문이 JSON 객체가 아닙니다: { $reason }.
malformed_json-empty = 본문이 JSON 객체가 아닙니다. 비어 있습니다.
malformed_json-broken_off = 본문이 도중에 끊겼습니다({ $reason }).
malformed_form = 폼을 읽을 수 없습니다. 같은 이름이 두 번 있습니다: { $name }.
malformed_form-parts = 폼을 읽을 수 없습니다: { $reason }.
malformed_form-breaks_off = 폼을 읽을 수 없습니다. 도중에 끊겼습니다.
malformed_message = 메시지를 읽을 수 없습니다. 이 메서드가 받는 메시지가 아닙니다.
invalid_path = 경로에 ID 대신 "{ $segment }" 값이 있습니다. ID는 정수입니다.
invalid_query-repeated = 같은 쿼리 매개변수가 두 번 이상 있습니다: { $name }.
invalid_query-not_an_integer = 쿼리 매개변수 { $name }의 값은 정수여야 합니다. 받은 값: "{ $value }".
invalid_query-unknown = 알 수 없는 쿼리 매개변수입니다: { $name }. 사용할 수 있는 매개변수: { $known }.
invalid_header-if_match = If-Match에는 ETag로 받은 그대로 큰따옴표로 묶은 엔터티 태그 또는 *만 쓸 수 있습니다. 받은 값: { $tag }.
invalid_header-if_match_bytes = If-Match에 글자가 아닌 바이트가 있습니다.
invalid_header-cors = 이 페이지에서는 이렇게 호출할 수 없습니다: { $reason }.
invalid_header-idempotency_key = Idempotency-Key는 한 번만, 공백 없는 ASCII 문자 1~{ $max }자로 보내야 합니다.
route_not_found = 이 경로에는 아무것도 없습니다. 사용할 수 있는 경로는 /docs에 나와 있습니다.
method_not_allowed = 이 경로에서 사용할 수 있는 메서드: { $methods }.
target_too_long = 경로와 쿼리가 { $limit }바이트를 초과합니다.
head_too_large = 헤더가 { $limit }바이트를 초과합니다.
body_too_large = 본문이 { $limit }바이트를 초과합니다.
body_timeout = 본문이 제한 시간 안에 도착하지 않았습니다.
unsupported_media_type = 본문은 { $wanted } 형식으로, 콘텐츠 인코딩 없이 보내십시오.
range_not_satisfiable = 요청한 범위가 끝을 벗어났습니다. 전체 크기: { $length }바이트.
too_slow = 요청 처리 제한 시간을 넘었습니다. 잠시 후 다시 시도하십시오.
too_slow-write = 요청 처리 제한 시간을 넘어 변경이 반영되었는지 알 수 없습니다. 먼저 결과를 확인하거나 같은 Idempotency-Key로 다시 보내십시오.

## 필드가 어길 수 있는 규칙

rule-required = 필수 항목입니다
rule-unknown_field = 알 수 없는 필드입니다
rule-unknown_field-nearest = 알 수 없는 필드입니다({ $nearest } 필드가 있습니다)
rule-not_a_string = 문자열이어야 합니다
rule-not_an_integer = 정수여야 합니다
rule-not_a_boolean = true 또는 false여야 합니다
rule-too_short =
    { $min ->
        [1] 비워 둘 수 없습니다
       *[other] { $min }자 이상이어야 합니다
    }
rule-too_long = { $max }자 이하여야 합니다
rule-out_of_range = { $min } 이상 { $max } 이하여야 합니다
rule-blank = 공백이나 보이지 않는 문자만으로는 채울 수 없습니다
rule-control_character = 줄바꿈과 탭 이외의 제어 문자를 쓸 수 없습니다
rule-not_an_email = 이메일 주소여야 합니다
rule-not_visible_ascii = 눈에 보이는 ASCII 문자만 쓸 수 있습니다
rule-not_an_entity_tag = 받은 그대로의 엔터티 태그여야 합니다
rule-not_one_of = 다음 중 하나여야 합니다: { $allowed }
