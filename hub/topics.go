package hub

import (
	"slices"
	"strings"
)

// topicSet is a client's topic filter: a sorted list of distinct topics. A map would use more memory per stream than
// the names. It is immutable.
type topicSet []string

// fewTopics is the number of topics up to which a linear search is faster than a binary search.
const fewTopics = 8

// newTopicSet returns a sorted copy of the list without duplicates; nil stays nil. It also copies the strings, because
// they may be parts of a large request, which must not stay in memory.
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

// maxCounted is the maximum number of topics of a filter that are counted separately: a filter from authentication
// may have thousands.
const maxCounted = 64

// An audience counts, per topic, the clients that receive a live broadcast. It avoids checking each client.
type audience struct {
	ofAll  int        // clients without a topic filter, or with one of more than maxCounted topics
	topics table[int] // number of other clients per topic
}

// add counts a client, if it is not counted yet.
func (a *audience) add(c *Client) {
	if !c.counted {
		c.counted = true
		a.change(c, 1)
	}
}

// remove stops counting a client.
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

// has reports whether any client may receive a broadcast with the topic.
func (a *audience) has(topic string) bool { return a.ofAll > 0 || a.topics.get(topic) > 0 }
