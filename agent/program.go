package agent

// CheckProgram returns why a program of the host could not be started, as far as
// that can be seen without starting it.
func CheckProgram(path string) error { return new(hookRunner).startable(path) }
