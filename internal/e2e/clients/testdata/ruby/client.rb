# usage: client.rb URL
#
# A loop with Net::HTTP, as an app would write it. Prints one JSON line for each event. Runs until it is killed.
require "json"
require "net/http"

$stdout.sync = true
uri = URI(ARGV.fetch(0))
last_id, retry_after = "", 3.0

loop do
  request = Net::HTTP::Get.new(uri, "Accept" => "text/event-stream", "Accept-Encoding" => "identity")
  request["Last-Event-ID"] = last_id unless last_id.empty?
  http = Net::HTTP.new(uri.host, uri.port)
  http.max_retries = 0 # otherwise it repeats the request immediately with the previous ID
  http.read_timeout = 45
  begin
    http.start do
      http.request(request) do |response|
        raise "status #{response.code}" unless response.code == "200"
        buffer, event, data, id = String.new, nil, [], nil
        response.read_body do |chunk|
          buffer << chunk
          while (line = buffer.slice!(/\A[^\n]*\n/))
            line = line.chomp.force_encoding("UTF-8")
            name, value = line.split(":", 2)
            value = value.to_s.delete_prefix(" ")
            if line.empty?
              last_id = id if id # not when reading its line, because the event may be incomplete
              puts JSON.generate(type: event || "message", data: data.join("\n")) unless data.empty?
              event, data, id = nil, [], nil
            elsif name == "data" then data << value
            elsif name == "event" then event = value
            elsif name == "id" then id = value
            elsif name == "retry" && value.match?(/\A\d+\z/) then retry_after = value.to_i / 1000.0
            end
          end
        end
      end
    end
  rescue SystemCallError, IOError, Timeout::Error, Net::ProtocolError, RuntimeError => error
    warn error.inspect
  end
  sleep retry_after
end
