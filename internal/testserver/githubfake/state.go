package githubfake

// state is what a repository has of the areas beside Git, issues and statuses.
type state struct {
	rulesets     []*ruleset
	suites       []*suite
	runs         []*run
	environments []*environment
	secrets      []string // names
	keys         []*deployKey
	keysChanged  func(lines []string)
	keysOff      bool
	archived     bool
	hooks        []*webhook
	runners      int
}
