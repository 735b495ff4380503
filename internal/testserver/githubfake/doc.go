// Package githubfake is a GitHub in memory, on loopback, for the tests: the part
// of the REST API that Keyturn calls, with what GitHub really does to state.
// Commits are Git's own objects, a branch moves only forward unless it is forced,
// two writers of one branch collide, tokens have permissions and an end, and a
// status, a comment or an approval belongs to whoever made it.
//
// # What a test writes
//
//	gh := githubfake.Start(t, githubfake.Options{})
//	app := gh.AddApp("keyturn", map[string]string{"contents": "write"})
//	gh.AddUser("alice", "write")
//	… githubapp.Options{API: gh.URL, Owner: gh.Owner, Repo: gh.Name, App: app.ID, Key: app.Key()} …
//
// Every request and every answer is held against GitHub's own description of its
// API (npm's @octokit/openapi): what is not as GitHub describes it fails the test.
//
// # State
//
// A [Server] embeds the [Repo] that most tests need only. What people do on
// github.com is a method: [Repo.Commit], [Repo.EditComment], [Repo.Approve], …
// Methods and requests may run at the same time.
//
// A call that the fake does not know fails the test.
package githubfake
