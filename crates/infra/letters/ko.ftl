# 메일에 적는 말. 글 하나가 꾸밈없는 한 문단이고, 그것을 감싸는 HTML은 letter.rs가 만든다.
# { $board }는 게시판 주소, { $name }은 받는 사람의 표시 이름, { $token }은 토큰이다.

greeting = 안녕하세요.
greeting-name = { $name } 님, 안녕하세요.
token = 토큰을 직접 입력해야 할 때에는 이 값을 쓰세요: { $token }
expiry = 30분 안에 한 번만 쓸 수 있습니다. 같은 종류의 메일을 새로 받으면 이 토큰은 무효가 됩니다.
signature = { $board } 게시판이 보낸 메일입니다. 답장은 아무도 읽지 않습니다.

verify-email-subject = 이메일 주소를 확인해 주세요
verify-email-why = { $board } 게시판의 계정에 이 이메일 주소가 등록되었습니다. 본인의 계정이라면 아래 페이지에서 주소를 확인해 주세요.
verify-email-otherwise = 그런 계정을 모른다면 아무것도 하지 않아도 됩니다. 주소는 확인되지 않은 채로 남습니다.

reset-password-subject = 새 비밀번호를 정해 주세요
reset-password-why = { $board } 게시판에 있는 계정의 비밀번호를 새로 정하겠다는 요청이 있었습니다. 본인이 요청했다면 아래 페이지에서 정해 주세요.
reset-password-otherwise = 본인이 요청하지 않았다면 아무것도 하지 않아도 됩니다. 지금 비밀번호가 그대로 유지됩니다.

email-changed-subject = 계정의 이메일 주소가 바뀌었습니다
email-changed-why = { $board } 게시판에 있는 계정의 이메일 주소가 다른 주소로 바뀌었습니다. 이 주소는 더 이상 그 계정의 것이 아니며, 앞으로 계정에 관한 메일을 받지 않습니다.
email-changed-otherwise = 직접 바꾸지 않았다면 다른 사람이 계정에 들어온 것입니다. 게시판 관리자에게 도움을 청하세요.

password-changed-subject = 비밀번호가 바뀌었습니다
password-changed-why = { $board } 게시판에 있는 계정의 비밀번호가 바뀌었고, 모든 기기에서 로그아웃되었습니다.
password-changed-otherwise = 직접 바꾸지 않았다면 { $page } 에서 곧바로 새 비밀번호를 정하고 게시판 관리자에게 알리세요.
