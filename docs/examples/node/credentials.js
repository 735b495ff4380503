// Reads the current credential as a whole; Node and nothing else.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { isDeepStrictEqual } = require("node:util");

// The server said that the name or the password is wrong.
class Refused extends Error {}

// One newline at the end is taken away, and no more.
const field = (file) => fs.readFileSync(file, "utf8").replace(/\r?\n$/, "");

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

// directory yields the credentials of a directory of versions: current, then next.
function* directory(folder, fields) {
  for (const link of ["current", "next"]) {
    let credential;
    for (let moves = 0; moves < 8 && !credential; moves++) { // a version is removed only after its link has moved on
      try {
        const version = fs.realpathSync(path.join(folder, link)); // once, for all fields
        credential = Object.fromEntries(fields.map((name) => [name, field(path.join(version, name))]));
      } catch (error) {
        if (error.code !== "ENOENT") throw error;
      }
    }
    if (credential) yield credential;
  }
}

// logIn returns what connect(credential) does, of the first that is not Refused.
const logIn = (variables, connect, env = process.env) => first(candidates(variables, env), connect);

// first does the same, of the credentials that candidates or directory yields.
async function first(credentials, connect) {
  let last = new Error("there is no whole credential");
  for (const credential of credentials) {
    try {
      return await connect(credential);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      last = error;
    }
  }
  throw last;
}

module.exports = { candidates, directory, first, logIn, Refused };
