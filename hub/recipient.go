package hub

// A Recipient is what a message is addressed to: a user, whose clients receive it, or a group, of whose members all
// clients receive it. The user Config.BroadcastUser stands for all clients.
type Recipient struct {
	Name  string
	Group bool
}

// User returns the recipient for a user id.
func User(id string) Recipient { return Recipient{Name: id} }

// Group returns the recipient for the name of a group.
func Group(name string) Recipient { return Recipient{Name: name, Group: true} }
