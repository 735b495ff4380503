// Reads the current credential as a whole; Node and nothing else.
"use strict";
const fs = require("node:fs");
const { isDeepStrictEqual } = require("node:util");

// The server said that the name or the password is wrong.
class Refused extends Error {}

// One newline at the end is taken away, and no more.
const field = (path) => fs.readFileSync(path, "utf8").replace(/\r?\n$/, "");

// candidates yields the whole credentials in the order in which to try them.
// variables says which field stands behind which variable:
// {POSTGRES_USER: "username", POSTGRES_PASSWORD: "password"}.
function* candidates(variables, env = process.env) {
  const found = [];
  let taken = false;
  for (const [file, plain] of [["_FILE", ""], ["_FILE_NEW", "_NEW"], ["", ""]]) {
    if (file && !Object.keys(variables).some((name) => env[name + file])) continue;
    if (!file && taken) continue; // its plain values belong to the current one
    const credential = {};
    let usedPlain = false;
    try {
      for (const [name, key] of Object.entries(variables)) {
        if (file && env[name + file]) {
          credential[key] = field(env[name + file]);
        } else {
          credential[key] = env[name + plain] || "";
          usedPlain = true;
        }
      }
    } catch (error) {
      if (error.code === "ENOENT") continue;
      throw error;
    }
    if (!Object.values(credential).every(Boolean)) continue;
    taken ||= file === "_FILE" && usedPlain;
    if (found.some((other) => isDeepStrictEqual(other, credential))) continue;
    found.push(credential);
    yield credential;
  }
}

// logIn returns what connect(credential) does, of the first that is not Refused.
async function logIn(variables, connect, env = process.env) {
  let last = new Error("there is no whole credential");
  for (const credential of candidates(variables, env)) {
    try {
      return await connect(credential);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      last = error;
    }
  }
  throw last;
}

module.exports = { candidates, logIn, Refused };
