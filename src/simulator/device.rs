//! The simulated account and what its devices publish. Pure: time comes in, randomness from the
//! seed.
//!
//! The law here: the same seed and number of devices give the same events in the same order; only
//! clock stamps (`published_at`, and the time inside a tracker's position) follow the time passed
//! in. So the daily shape of a temperature runs on a day of its own, half a minute an event: at two
//! events a second a day lasts 24 minutes.

use std::{collections::VecDeque, f64::consts::TAU};

use jiff::Timestamp;

use super::{
    picture,
    route::{Origin, Ownership},
    wire::{Event, ProductFields, Ttl},
};

/// What the simulated user owns.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) userid: String,
    pub(super) product_id: u32,
    pub(super) product_slug: &'static str,
    pub(super) org: &'static str,
    devices: Vec<Device>,
    rng: fastrand::Rng,
    /// Minutes into the simulated day.
    minutes: f64,
    /// Events that follow from one already published: hook responses, enhanced positions. At most a
    /// handful.
    follow_ups: VecDeque<Event>,
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) ownership: Ownership,
    pub(super) online: bool,
    version: u32,
    battery_volts: f64,
    readings: u32,
    instrument: Instrument,
}

/// What it measures.
#[derive(Debug, Clone)]
enum Instrument {
    Greenhouse { warmth: f64, humidity: f64 },
    Door { open: bool },
    Tracker { latitude: f64, longitude: f64, heading: f64 },
    Soil { moisture: f64 },
    Button,
    Camera,
}

/// Minutes the simulated day advances with each event.
const MINUTES_PER_EVENT: f64 = 0.5;
/// Hook responses come in pieces of this many bytes.
const HOOK_CHUNK_BYTES: usize = 512;
/// The largest event of today's devices.
const LARGE_EVENT_BYTES: usize = 16_384;

impl Account {
    pub(super) fn new(devices: usize, seed: u64) -> Account {
        let mut rng = fastrand::Rng::with_seed(seed);
        let userid = format!("5f{:022x}", rng.u64(..));
        let product_id = rng.u32(10_000..50_000);
        let devices = (0..devices).map(|index| Device::new(index, &mut rng)).collect();
        Account {
            userid,
            product_id,
            product_slug: "greenhouse-kit",
            org: "acme-growers",
            devices,
            rng,
            minutes: 6.0 * 60.0,
            follow_ups: VecDeque::new(),
        }
    }

    pub(super) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// To whom the device belongs; an index of this account's devices.
    pub(super) fn ownership(&self, index: usize) -> Ownership {
        self.devices
            .get(index)
            .map_or(Ownership { claimed: false, on_product: false }, |device| device.ownership)
    }

    /// The device with this id or name.
    pub(super) fn device(&self, id_or_name: &str) -> Option<usize> {
        self.devices.iter().position(|device| device.id == id_or_name || device.name == id_or_name)
    }

    /// An event of the device at `index`, as if it had published this. It does not disturb the
    /// sequence of events.
    pub(super) fn event_of(
        &self,
        index: usize,
        name: &str,
        data: Option<String>,
        now: Timestamp,
    ) -> Event {
        let device = self.devices.get(index);
        Event {
            name: name.to_owned(),
            data,
            ttl: Ttl::Number,
            published_at: now,
            coreid: device.map_or_else(|| "api".to_owned(), |device| device.id.clone()),
            product: device.and_then(|device| self.product_fields(device)),
            origin: Origin::Device(index),
        }
    }

    /// An event published through the API, by the user or for the product.
    pub(super) fn event_of_api(
        &self,
        origin: Origin,
        name: &str,
        data: Option<String>,
        now: Timestamp,
    ) -> Event {
        let product = (origin == Origin::Product).then(|| ProductFields {
            userid: self.userid.clone(),
            version: 0,
            product_id: self.product_id,
        });
        let name = name.to_owned();
        Event {
            name,
            data,
            ttl: Ttl::Number,
            published_at: now,
            coreid: "api".to_owned(),
            product,
            origin,
        }
    }

    /// The next event of the sequence.
    pub(super) fn next(&mut self, now: Timestamp) -> Event {
        self.minutes = (self.minutes + MINUTES_PER_EVENT) % 1_440.0;
        if let Some(event) = self.follow_ups.pop_front() {
            return Event { published_at: now, ..event };
        }
        let index = self.rng.usize(..self.devices.len());
        if !self.devices[index].online {
            self.devices[index].online = true;
            return self.event_of(index, "spark/status", Some("online".to_owned()), now);
        }
        match self.rng.u32(..1_000) {
            0..8 => {
                self.devices[index].online = false;
                self.event_of(index, "spark/status", Some("offline".to_owned()), now)
            }
            8..18 => {
                let diagnostics = self.diagnostics(index);
                self.event_of(index, "spark/device/diagnostics/update", Some(diagnostics), now)
            }
            18..26 => self.hook(index, now),
            26..46 => {
                let device = &mut self.devices[index];
                device.battery_volts = (device.battery_volts - 0.002).max(3.3);
                let charge = (device.battery_volts - 3.3) / 0.9 * 100.0;
                let data = format!(r#"{{"v":{:.2},"soc":{charge:.0}}}"#, device.battery_volts);
                self.event_of(index, "battery", Some(data), now)
            }
            46..56 => {
                let log = self.log_lines(1_024);
                self.event_of(index, "log/lines", Some(log), now)
            }
            56..59 => {
                let table = self.table(LARGE_EVENT_BYTES);
                self.event_of(index, "sensor/history", Some(table), now)
            }
            59..66 => self.event_of(index, "motion-detected", None, now),
            66..70 => self.event_of(
                index,
                "spark/device/last_reset",
                Some("panic, hard_fault".to_owned()),
                now,
            ),
            70..76 => {
                let text = Some("Zürich 21 °C – 温度 ok 🌡️".to_owned());
                self.event_of(index, "display/text", text, now)
            }
            _ => self.reading(index, now),
        }
    }

    fn reading(&mut self, index: usize, now: Timestamp) -> Event {
        // The warmest hour is three in the afternoon.
        let daylight = ((self.minutes / 1_440.0 - 0.375) * TAU).sin();
        let rng = &mut self.rng;
        let mut drift = |by: f64| (rng.f64() - 0.5) * 2.0 * by;
        let device = &mut self.devices[index];
        device.readings = device.readings.wrapping_add(1);
        let number = index / KINDS.len() + 1;
        let (name, data) = match &mut device.instrument {
            Instrument::Greenhouse { warmth, humidity } => {
                *warmth = (*warmth + drift(0.15)).clamp(-3.0, 3.0);
                *humidity = (*humidity + drift(0.8)).clamp(35.0, 90.0);
                match device.readings % 2 {
                    0 => (
                        format!("greenhouse/bay-{number}/humidity"),
                        format!("{:.1}", *humidity - 8.0 * daylight),
                    ),
                    _ => (
                        format!("greenhouse/bay-{number}/temperature"),
                        format!("{:.2}", 21.0 + *warmth + 6.0 * daylight),
                    ),
                }
            }
            Instrument::Door { open } => {
                *open = !*open;
                ("door/state".to_owned(), if *open { "open" } else { "closed" }.to_owned())
            }
            Instrument::Tracker { latitude, longitude, heading } => {
                *heading = (*heading + drift(25.0)).rem_euclid(360.0);
                let (north, east) = (heading.to_radians().cos(), heading.to_radians().sin());
                // About 30 m a step, kept inside one city.
                *latitude = (*latitude + 0.000_27 * north).clamp(52.30, 52.45);
                *longitude = (*longitude + 0.000_44 * east).clamp(4.75, 5.05);
                let loc = format!(
                    r#""loc":{{"lck":1,"time":{},"lat":{latitude:.6},"lon":{longitude:.6},"alt":{:.1},"hd":{heading:.1},"spd":{:.1},"h_acc":{:.1}}},"trig":["time"],"req_id":{}"#,
                    now.as_second(),
                    2.0 + drift(1.0),
                    8.0 + drift(3.0),
                    4.0 + drift(1.5),
                    device.readings,
                );
                let enhanced = format!(r#"{{"cmd":"loc-enhanced",{loc}}}"#);
                let follow_up = self.event_of(index, "loc-enhanced", Some(enhanced), now);
                self.follow_ups.push_back(follow_up);
                ("loc".to_owned(), format!(r#"{{"cmd":"loc",{loc}}}"#))
            }
            Instrument::Soil { moisture } => {
                // Dries out, and is watered.
                *moisture -= 0.6 + drift(0.3);
                if *moisture < 22.0 {
                    *moisture = 61.0;
                }
                let data = format!(
                    r#"{{"moisture":{moisture:.1},"t":{:.1}}}"#,
                    16.0 + 2.0 * daylight + drift(0.2)
                );
                ("soil/reading".to_owned(), data)
            }
            Instrument::Button => ("button/pressed".to_owned(), String::new()),
            Instrument::Camera => {
                let thing = drift(1.0).to_bits().to_le_bytes();
                match device.readings % 4 {
                    0 => (
                        "camera/thumb".to_owned(),
                        picture::data_url((daylight + 1.0) / 2.0, thing[0], thing[1]),
                    ),
                    _ => {
                        ("camera/brightness".to_owned(), format!("{:.0}", 500.0 + 450.0 * daylight))
                    }
                }
            }
        };
        self.event_of(index, &name, Some(data), now)
    }

    /// A webhook that was triggered: the event returned, and its response in pieces to follow.
    fn hook(&mut self, index: usize, now: Timestamp) -> Event {
        let internal = |event: Event| Event { coreid: "particle-internal".to_owned(), ..event };
        let bytes = self.rng.usize(300..1_800);
        let response = self.table(bytes);
        let topic = match self.devices[index].ownership.on_product {
            true => format!("{}/hook-response/weather", self.devices[index].id),
            false => "hook-response/weather".to_owned(),
        };
        for (piece, bytes) in response.as_bytes().chunks(HOOK_CHUNK_BYTES).enumerate() {
            let data = String::from_utf8_lossy(bytes).into_owned();
            let event = self.event_of(index, &format!("{topic}/{piece}"), Some(data), now);
            self.follow_ups.push_back(internal(event));
        }
        let sent =
            internal(self.event_of(index, "hook-sent/weather", Some("undefined".to_owned()), now));
        Event { ttl: Ttl::Text, ..sent }
    }

    fn diagnostics(&mut self, index: usize) -> String {
        let device = &self.devices[index];
        let (signal, memory) = (-self.rng.i32(45..85), self.rng.u32(60_000..90_000));
        let padding = "0".repeat(self.rng.usize(480..560));
        format!(
            r#"{{"device":{{"network":{{"signal":{{"at":"Wi-Fi","strength":{},"strength_units":"%","strengthv":{signal},"strengthv_units":"dBm"}},"connection":{{"status":"connected","disconnects":{},"attempts":1}}}},"cloud":{{"connection":{{"status":"connected","error":0,"attempts":1}},"coap":{{"transmit":{},"retransmit":0,"unack":0,"round_trip":{}}},"publish":{{"rate_limited":0}}}},"power":{{"source":"USB host","battery":{{"state":"charged","charge":{:.1}}}}},"system":{{"uptime":{},"memory":{{"used":{memory},"total":165120}}}}}},"service":{{"device":{{"status":"ok"}},"pad":"{padding}"}}}}"#,
            120 + signal,
            device.readings % 3,
            device.readings + 10,
            self.rng.u32(40..900),
            device.battery_volts / 4.2 * 100.0,
            u64::from(device.readings) * 60 + 300,
        )
    }

    /// Lines of a log, exactly so many bytes, ASCII.
    fn log_lines(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 64);
        while text.len() < bytes {
            let line = self.rng.u32(..0x0100_0000);
            text.push_str(&format!("{line:010} [app] INFO: \"pump\" state={}\r\n", line % 3));
        }
        text.truncate(bytes);
        text
    }

    /// A structured event: a JSON table with an embedded buffer, exactly so many bytes, ASCII.
    fn table(&mut self, bytes: usize) -> String {
        let buffer = picture::base64(&self.rng.u64(..).to_le_bytes());
        let mut text =
            format!(r#"{{"buf":{{"_type":"buffer","_data":"{buffer}"}},"rows":[[0,20.0,0]"#);
        // The closing words are 11 bytes, a row is at most 20.
        while text.len() + 32 < bytes {
            let row = text.len() / 12;
            text.push_str(&format!(
                ",[{row},{:.1},{}]",
                20.0 + self.rng.f64() * 10.0,
                self.rng.u32(..1_000)
            ));
        }
        let padding = bytes.saturating_sub(text.len() + 11);
        format!(r#"{text}],"pad":"{}"}}"#, "x".repeat(padding))
    }

    fn product_fields(&self, device: &Device) -> Option<ProductFields> {
        device.ownership.on_product.then(|| ProductFields {
            userid: if device.ownership.claimed { self.userid.clone() } else { String::new() },
            version: device.version,
            product_id: self.product_id,
        })
    }
}

/// Kind of device, what its name begins with, how its id begins.
const KINDS: [(&str, &str, &str); 6] = [
    ("greenhouse", "greenhouse", "e00fce68"),
    ("door", "cold-store-door", "e00fce68"),
    ("tracker", "van", "b0256ab2"),
    ("soil", "soil-bed", "0a10aced"),
    ("button", "call-button", "e00fce68"),
    ("camera", "yard-camera", "0a10aced"),
];

impl Device {
    /// The first device is claimed and on the product, so that every kind of stream has it. Every
    /// third is on the product; of these, the tenth and every twelfth after it is unclaimed.
    fn new(index: usize, rng: &mut fastrand::Rng) -> Device {
        let (kind, name, id) = KINDS[index % KINDS.len()];
        let instrument = match kind {
            "greenhouse" => Instrument::Greenhouse {
                warmth: rng.f64() * 2.0 - 1.0,
                humidity: 55.0 + rng.f64() * 15.0,
            },
            "door" => Instrument::Door { open: false },
            "tracker" => Instrument::Tracker {
                latitude: 52.37 + rng.f64() * 0.02,
                longitude: 4.88 + rng.f64() * 0.04,
                heading: rng.f64() * 360.0,
            },
            "soil" => Instrument::Soil { moisture: 30.0 + rng.f64() * 30.0 },
            "button" => Instrument::Button,
            _ => Instrument::Camera,
        };
        Device {
            id: format!("{id}{:016x}", rng.u64(..)),
            name: format!("{name}-{}", index / KINDS.len() + 1),
            kind,
            ownership: Ownership { claimed: index % 12 != 9, on_product: index.is_multiple_of(3) },
            online: true,
            version: rng.u32(1..9),
            battery_volts: 3.7 + rng.f64() * 0.45,
            readings: 0,
            instrument,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn events(devices: usize, seed: u64, count: i64) -> Vec<Event> {
        let mut account = Account::new(devices, seed);
        (0..count).map(|second| account.next(at(second))).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(events(12, 7, 3_000), events(12, 7, 3_000));
        assert_ne!(events(12, 7, 50), events(12, 8, 50));
    }

    #[test]
    fn only_clock_stamps_follow_the_clock() {
        let mut account = Account::new(12, 7);
        let other = (0..3_000).map(|_| account.next(at(0))).collect::<Vec<_>>();
        for (left, right) in events(12, 7, 3_000).iter().zip(&other) {
            assert_eq!((&left.name, &left.coreid), (&right.name, &right.coreid));
            if !left.name.starts_with("loc") {
                assert_eq!(left.data, right.data);
            }
        }
    }

    #[test]
    fn everything_the_real_cloud_sends_occurs() {
        let events = events(12, 1, 6_000);
        let names: BTreeSet<&str> = events.iter().map(|event| event.name.as_str()).collect();
        for name in [
            "greenhouse/bay-1/temperature",
            "greenhouse/bay-2/humidity",
            "door/state",
            "loc",
            "loc-enhanced",
            "soil/reading",
            "button/pressed",
            "camera/thumb",
            "battery",
            "spark/status",
            "spark/device/diagnostics/update",
            "hook-sent/weather",
            "hook-response/weather/0",
            "motion-detected",
        ] {
            assert!(names.contains(name), "{name} is not among {names:?}");
        }
        assert!(names.iter().any(|name| name.contains("/hook-response/weather/1")));
        let lengths: BTreeSet<usize> =
            events.iter().flat_map(|event| &event.data).map(String::len).collect();
        assert!(
            [0, 512, 1_024, 16_384].iter().all(|length| lengths.contains(length)),
            "{lengths:?}"
        );
        assert_eq!(lengths.last(), Some(&LARGE_EVENT_BYTES));
        assert!(events.iter().any(|event| event.data.is_none()));
        assert!(
            events.iter().any(|event| event
                .product
                .as_ref()
                .is_some_and(|product| product.userid.is_empty()))
        );
    }

    #[test]
    fn json_in_an_event_is_json() {
        for event in events(24, 3, 4_000) {
            let data = event.data.unwrap_or_default();
            if data.starts_with('{') && !event.name.contains("hook-response") {
                let parsed = serde_json::from_str::<serde_json::Value>(&data);
                assert!(parsed.is_ok(), "{}: {parsed:?}: {data}", event.name);
            }
        }
    }

    #[test]
    fn ids_and_names_are_the_clouds_own_shape_and_unique() {
        let account = Account::new(1_000, 5);
        let ids: BTreeSet<&str> =
            account.devices().iter().map(|device| device.id.as_str()).collect();
        let names: BTreeSet<&str> =
            account.devices().iter().map(|device| device.name.as_str()).collect();
        assert_eq!((ids.len(), names.len()), (1_000, 1_000));
        assert!(
            ids.iter().all(|id| id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        );
        assert_eq!(account.userid.len(), 24);
        assert_eq!(account.device("van-2"), account.device(&account.devices()[8].id));
    }

    #[test]
    fn one_device_is_enough() {
        let account = Account::new(1, 0);
        assert_eq!(account.ownership(0), Ownership { claimed: true, on_product: true });
        assert_eq!(events(1, 0, 500).len(), 500);
    }
}
