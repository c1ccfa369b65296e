package hub

// An Origin is where the client was before that resumes here with an id. String returns the value of the metric label.
type Origin uint8

// The origins.
const (
	OriginThisHub  Origin = iota + 1 // the user has a client of this hub or, with a PubSub, had one within the history age
	OriginOtherHub                   // the user did not, but the id is known
	OriginUnknown                    // the id is not known

	originCount = iota + 1
)

var originWords = [originCount]string{"", "this_hub", "other_hub", "unknown"}

func (o Origin) String() string { return originWords[o] }

// Origins returns every origin.
func Origins() []Origin { return []Origin{OriginThisHub, OriginOtherHub, OriginUnknown} }
