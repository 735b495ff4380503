// Package rotated reads a credential that is being rotated under the feet of
// the application that uses it.
//
// # The idea
//
// A rotation never changes a password: it makes a second credential, lets both
// work for a while, moves the application to the new one and then ends the old
// one. For the application that leaves three rules, and this package keeps them:
//
//   - A credential is read as a whole. A new user name with an old password
//     works nowhere, so a [Credential] takes all of its fields from one place,
//     never some from here and some from there.
//   - It is read when it is needed, for each new connection, and not once at
//     the start: files are small and their content may have moved on.
//   - Where a second whole credential is at hand, it is tried when the first is
//     refused ([Source.Do]), and only then. A server that does not answer says
//     nothing about a password.
//
// # Where a credential stands
//
// [Env] reads what the environment names. For the field password behind the
// variable POSTGRES_PASSWORD, and likewise for every other field, it looks in
// this order at
//
//  1. the file that POSTGRES_PASSWORD_FILE names;
//  2. the file that POSTGRES_PASSWORD_FILE_NEW names: the next credential,
//     which is mounted beside the current one while a rotation is on its way;
//  3. POSTGRES_PASSWORD itself.
//
// Fields that are no secret may stand in the variable itself beside files of
// the others: POSTGRES_USER with POSTGRES_PASSWORD_FILE, POSTGRES_USER_NEW with
// POSTGRES_PASSWORD_FILE_NEW. A place in which one field is missing is passed
// over as a whole.
//
// [Files] reads files at fixed paths. [Dir] reads a directory of versions, v1,
// v2 and so on, of which the symbolic link current names one, and next the one beside it.
//
// Files lose one newline at their end, and no more. Values are never in an
// error, and a [Credential] cannot be printed.
package rotated
