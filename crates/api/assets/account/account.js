// The pages that letters link to: verify an address, set a new password, ask for a letter. The token comes behind the
// `#`, which no server sees; it leaves the address bar at once, so that it stays in no history.
"use strict";

const WORDS = {
  en: {
    verify: {
      title: "Confirm your e-mail address",
      explanation: "One press of the button confirms that this address is yours.",
      send: "Confirm",
      done: "Thank you: the address is confirmed. You can close this page.",
    },
    reset: {
      title: "Set a new password",
      explanation: "At least 8 characters; anything may be in it. Every device will be signed out.",
      send: "Set the password",
      done: "The new password is set. Sign in with it from now on.",
    },
    forgot: {
      title: "Forgot your password?",
      explanation: "Give the e-mail address of your account, and a letter will tell you how to go on.",
      send: "Send the letter",
      done: "If there is an account with this address, a letter is on its way.",
    },
    token: "Token from the letter",
    email: "E-mail address",
    password: "New password",
    another: "Ask for a new letter",
    invalid: "This token is not good, or no longer: it works once, within 30 minutes, and a newer letter replaces it.",
    password_length: "The password must have 8 to 256 characters.",
    email_shape: "This is not an e-mail address.",
    empty: "Something is missing.",
    busy: "Too much is going on. Try again in a moment.",
    failed: "That did not work. Try again in a moment.",
  },
  ko: {
    verify: {
      title: "이메일 주소 확인",
      explanation: "버튼을 누르면 이 주소가 본인의 것임이 확인됩니다.",
      send: "확인",
      done: "이메일 주소가 확인되었습니다. 이 페이지를 닫아도 됩니다.",
    },
    reset: {
      title: "새 비밀번호 정하기",
      explanation: "8자 이상이면 어떤 문자든 쓸 수 있습니다. 모든 기기에서 로그아웃됩니다.",
      send: "비밀번호 정하기",
      done: "새 비밀번호를 정했습니다. 이제부터 이 비밀번호로 로그인하세요.",
    },
    forgot: {
      title: "비밀번호를 잊으셨나요?",
      explanation: "계정의 이메일 주소를 입력하면 다음 절차를 메일로 알려 드립니다.",
      send: "메일 받기",
      done: "이 주소로 된 계정이 있으면 곧 메일이 도착합니다.",
    },
    token: "메일에 적힌 토큰",
    email: "이메일 주소",
    password: "새 비밀번호",
    another: "메일 다시 받기",
    invalid: "쓸 수 없는 토큰입니다. 토큰은 30분 안에 한 번만 쓸 수 있고, 새 메일을 받으면 무효가 됩니다.",
    password_length: "비밀번호는 8자 이상 256자 이하여야 합니다.",
    email_shape: "이메일 주소가 아닙니다.",
    empty: "빠진 것이 있습니다.",
    busy: "지금은 요청이 너무 많습니다. 잠시 후 다시 시도하세요.",
    failed: "처리하지 못했습니다. 잠시 후 다시 시도하세요.",
  },
};

const PAGES = {
  verify: { fields: ["token"], body: (value) => ({ token: value("token") }) },
  reset: {
    fields: ["token", "password"],
    body: (value) => ({ token: value("token"), new_password: value("password") }),
  },
  forgot: { fields: ["email"], body: (value) => ({ email: value("email") }) },
};

const element = (id) => document.getElementById(id);
const name = document.querySelector("main").dataset.page;
const page = PAGES[name];
const fragment = new URLSearchParams(location.hash.slice(1));
const wish = fragment.get("lang") || navigator.languages.find((tag) => /^(ko|en)\b/i.test(tag)) || "en";
const language = /^ko\b/i.test(wish) ? "ko" : "en";
const words = WORDS[language];

const token = fragment.get("token") || "";
if (location.hash) {
  history.replaceState(null, "", location.pathname + location.search);
}

document.documentElement.lang = language;
document.title = words[name].title;
element("title").textContent = words[name].title;
element("explanation").textContent = words[name].explanation;
element("send").textContent = words[name].send;
element("next-link").textContent = words.another;
for (const field of page.fields) {
  document.querySelector(`label[for=${field}]`).textContent = words[field];
  // A token that the link brought need not be seen.
  element(`${field}-field`).hidden = field === "token" && token !== "";
}
element("token").value = token;
element("form").hidden = false;

const say = (text, good) => {
  element("outcome").textContent = text;
  element("outcome").className = good ? "good" : "bad";
};

const refused = async (answer) => {
  const problem = await answer.json().catch(() => ({}));
  const broken = (problem.errors || []).map((error) => error.pointer);
  if (broken.includes("/new_password")) return words.password_length;
  if (broken.includes("/email")) return words.email_shape;
  if (problem.code === "invalid_mail_token" || broken.includes("/token")) {
    element("token-field").hidden = false;
    element("next").hidden = name !== "reset";
    return words.invalid;
  }
  return answer.status === 429 || answer.status === 503 ? words.busy : words.failed;
};

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = (field) => (field === "password" ? element(field).value : element(field).value.trim());
  if (page.fields.some((field) => value(field) === "")) {
    say(words.empty, false);
    return;
  }
  element("send").disabled = true;
  try {
    const answer = await fetch(`../api/v1/auth/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": language },
      body: JSON.stringify(page.body(value)),
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
    if (answer.ok) {
      element("form").hidden = true;
      element("explanation").hidden = true;
      element("next").hidden = true;
      say(words[name].done, true);
      return;
    }
    say(await refused(answer), false);
  } catch {
    say(words.failed, false);
  }
  element("send").disabled = false;
});
