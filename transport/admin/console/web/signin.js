// The token, when the hub asks for one.

import { $, announce, setText } from "./dom.js";
import { token } from "./hub.js";

export class SignIn {
  /** signedIn is called when a token was given. */
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
      location.reload(); // and with it goes all that was shown
    });
  }

  /** Asks for a token; one that is there was not the right one. */
  ask() {
    const wrong = token.get() !== null;
    token.forget();
    document.body.dataset.view = "signin";
    $("signout").hidden = true;
    this.#say(wrong ? "The hub does not know this token." : "");
    $("signin-token").focus();
  }

  /** The hub has answered: shows the console. */
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
