package agent

// CheckProgram returns why a program of the host could not be started by the user, nil is
// who asks, as far as that can be seen without starting it.
func CheckProgram(path string, by *User) error { return (&hookRunner{user: by}).startable(path) }
