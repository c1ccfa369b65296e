package hub

import (
	"slices"
	"strings"
)

// topicSet is a client's topic filter: different topics in order. A map would cost each
// stream more than its names. It is immutable.
type topicSet []string

// fewTopics are compared one by one: up to here that is quicker than a binary search.
const fewTopics = 8

// newTopicSet copies a list and its strings, each once; nil stays nil. The list may be a
// small part of a large request, which must not be kept.
func newTopicSet(list []string) *topicSet {
	if list == nil {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	set := make(topicSet, len(list))
	for i, topic := range list {
		set[i] = strings.Clone(topic)
	}
	return &set
}

// has reports whether a topic is in the set.
func (s topicSet) has(topic string) bool {
	if len(s) <= fewTopics {
		return slices.Contains(s, topic)
	}
	_, found := slices.BinarySearch(s, topic)
	return found
}

// maxCounted bounds the topics of a filter that are counted one by one: a filter that comes
// from a login may have thousands.
const maxCounted = 64

// An audience counts the clients that receive a broadcast of each topic live. It answers
// without a look at each client.
type audience struct {
	ofAll  int        // clients without a topic filter, or with one of more than maxCounted topics
	topics table[int] // the others, by each topic of their filters
}

// add counts a client in, once.
func (a *audience) add(c *Client) {
	if !c.counted {
		c.counted = true
		a.change(c, 1)
	}
}

// remove counts a client out.
func (a *audience) remove(c *Client) {
	if c.counted {
		c.counted = false
		a.change(c, -1)
	}
}

func (a *audience) change(c *Client, by int) {
	if c.topics == nil || len(*c.topics) > maxCounted {
		a.ofAll += by
		return
	}
	for _, topic := range *c.topics {
		if n := a.topics.get(topic) + by; n > 0 {
			a.topics.set(topic, n)
		} else {
			a.topics.remove(topic)
		}
	}
}

// has reports whether a broadcast of the topic may reach any client.
func (a *audience) has(topic string) bool { return a.ofAll > 0 || a.topics.get(topic) > 0 }
