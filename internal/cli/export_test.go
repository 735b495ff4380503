package cli

// What the action takes and gives, sorted, for the test that holds action.yml
// against it.
var (
	ActionInputs  = inputs
	ActionOutputs = func() []string { return sorted(actionOutputs) }
)
