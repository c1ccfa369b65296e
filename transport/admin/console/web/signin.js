// The sign-in form, for hubs that require an admin token.

import { $, announce, setText } from "./dom.js";
import { token } from "./hub.js";

export class SignIn {
  /** Calls signedIn when the operator has entered a token. */
  constructor(signedIn) {
    $("signin-form").addEventListener("submit", e => {
      e.preventDefault();
      const given = $("signin-token").value.trim();
      if (given === "") return;
      token.set(given);
      $("signin-token").value = "";
      this.#say("");
      signedIn();
    });
    $("signout").addEventListener("click", () => {
      token.forget();
      window.history.replaceState(null, "", location.pathname + location.search);
      location.reload(); // removes everything that was shown
    });
  }

  /** Shows the form. A stored token was rejected, so it is deleted. */
  ask() {
    const wrong = token.get() !== null;
    token.forget();
    document.body.dataset.view = "signin";
    $("signout").hidden = true;
    this.#say(wrong ? "Invalid token." : "");
    $("signin-token").focus();
  }

  /** Shows the console after the hub has accepted a request. */
  done() {
    if (document.body.dataset.view === "console") return;
    const asked = document.body.dataset.view === "signin";
    document.body.dataset.view = "console";
    $("signout").hidden = token.get() === null;
    if (asked) $("lookup-user").focus();
  }

  #say(text) {
    setText($("signin-wrong"), text);
    if (text) announce(text);
  }
}
