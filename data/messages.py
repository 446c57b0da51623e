"""The message catalogue: hand-written text messages, honest (ham) and not (spam), with blanks.

How to read a pattern. One pattern per line; an indented line goes on with the one above.
    {name}      a blank, filled from the list of that name in SLOTS
    [ok|fine]   one of these words (or nothing, where a choice is empty)
    #           one digit
A pattern belongs to exactly one split, with all its fills, so that the test asks about *kinds* of
messages never seen in training and not about known sentences with another name in them.
Situations that start with "tricky" are the hard cases: honest messages that shout FREE, and spam
that has good manners. Every person, firm, number and address is invented: hosts end in .example
(RFC 2606), and the phone numbers are from ranges kept for fiction.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache

# --- what goes into the blanks -------------------------------------------------------------------

SLOTS: dict[str, list[str]] = {
    "name": "Anna Ben Clara Dan Emma Finn Grace Hugo Ida Jack Kim Leo Mia Nora Omar Priya Rosa Sam "
    "Tom Zoe Raj Lena Wei Yusuf".split(),
    "girl": "Anna Clara Emma Grace Ida Mia Nora Priya Rosa Zoe Lena".split(),
    "boy": "Ben Dan Finn Hugo Jack Leo Omar Tom Raj Wei Yusuf".split(),
    "kin": "mum dad grandma grandpa uncle_Bert auntie_May my_sister my_brother".split(),
    "hi": "hi hey hello hiya Hi Hey Hello morning evening".split(),
    "ok": "ok okay sure fine cool alright".split(),
    "laugh": "haha lol hehe ha".split(),
    "end": ["", "", "", ".", "!", " x", " xx", " :)", " ;)", " \U0001f642"],
    "love": ["x", "xx", "xxx", "love you", "miss you", "hugs", "kiss kiss", "\u2764"],
    "thanks": "thanks thx cheers ta many_thanks thank_you".split(),
    "you": "you you u".split(),
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "time": "5 6 7 8 half_six 4:30 5:15 7:45 noon half_past_three 9:30 10".split(),
    "clock": "8:15 9:00 9:40 10:30 11:20 14:00 14:45 15:30 16:10 17:00".split(),
    "few": "two three four five six 2 3 4 5".split(),
    "mins": "5 10 15 20 25 30 40".split(),
    "place": "station park library cafe pool gym market pub bus_stop cinema school bakery".split(),
    "room": "kitchen bathroom garden cellar hall garage attic".split(),
    "food": "pizza soup pasta curry cake pancakes noodles tacos pie salad dumplings stew".split(),
    "dish": "pizza soup pasta curry cake pie salad stew".split(),  # what "is" ready, not "are"
    "buy": "milk eggs bread onions rice butter apples cheese tea tomatoes toilet_paper".split(),
    "thing": "keys umbrella charger scarf bike_lock guitar book headphones jacket ladder tent "
    "glasses".split(),
    "tool": "umbrella charger scarf bike_lock guitar jacket ladder tent".split(),  # one thing
    "pet": "cat dog hamster rabbit parrot tortoise".split(),
    "sport": "football tennis swimming chess running basketball judo hockey".split(),
    "lesson": "maths history biology physics French art music".split(),
    "show": "concert film play match quiz party".split(),
    "shop": "Marrow_Market Kettle_Books Thimble_Shoes Copper_Pan Nutbox_TV".split(),
    "bank": "Puddle_Bank Bank_of_Moss Teaspoon_Bank".split(),
    "post": "Snail_Express Badger_Post Pigeon_Parcels".split(),
    "mobile": "Hoot_Mobile Cricket_Phone Echo_Mobile".split(),
    "gadget": "phone tablet laptop television camera watch bike".split(),
    "coin": "FrogCoin MoonPenny bitcoin PlumCoin".split(),
    "price": "$3 $5 $8 $12 $15 $20 $25 $40 \u00a35 \u00a310 \u00a320".split(),
    "fee": "$1.## $2.## $3.## \u00a31.## \u00a32.##".split(),
    "sum": "$250 $500 $750 $900 \u00a3200 \u00a3350 \u00a3600 $480".split(),
    "riches": "$1,000 $2,000 $5,000 $10,000 $50,000 \u00a31,000 \u00a35,000 \u00a3100,000".split(),
    "percent": "2% 3% 5% 20% 30% 50% 70% 90%".split(),
    "off": "20% 30% 50% 70% 90%".split(),
    "code": "###### #### ###-###".split(),
    "parcel": "SX#######  BP######## PP######".split(),
    "house": "1# 2# 4# 3 5 8".split(),
    "phone": "555-01## 07700_900### 555-01## 07700_900###".split(),
    "short": "0####".split(),  # no real short number starts with 0
    # Honest people send links too: "go.example" is in both lists.
    "page": "go.example/#### pics.example/#### valley-club.example map.example/### "
    "forms.example/###".split(),
    "link": "go.example/#### my-parcel.example/### claim-it.example secure-login.example/## "
    "top-deal.example bonus.example/####".split(),
}
SLOTS = {slot: [value.replace("_", " ") for value in values] for slot, values in SLOTS.items()}

# --- ham: what people really write ---------------------------------------------------------------

HAM: dict[str, str] = {
    "short replies": """
{ok}{end}
{ok} [see you|see u|c u] [there|then|later|soon|at {time}]{end}
[on my way|omw|coming|nearly there|leaving now|just leaving] [now|]{end}
[yes|yep|yeah|yup] [please|of course|why not|that works|sounds good|go on then]{end}
[no|nope|nah] [sorry|not yet|not today|thanks|no idea|it was {name}]{end}
[lol|haha|hehe] [what|no way|so true|same|stop it|classic {name}]{end}
[dunno|no idea|not sure], ask {name}{end}
[running|gonna be] [late|a bit late|{mins} mins late], [sorry|so sorry|my fault|traffic]{end}
[good night|night night|sleep well|sweet dreams] {love}
[good luck|fingers crossed|you can do it] [{name}|today|for {day}|with {lesson}]{end}
[thx|thanks|ta|cheers] [a lot|so much|again|{name}|for {food}|for the {thing}]{end}
[where|wher] [r u|are you|are u]? [im here|im by the door|i am at the {place}]
[who|what|why|when]?? [lol|tell me|now i need to know|details please]
in [a meeting|class|the bath|the dentist chair], [text|call] {you} later{end}
[got it|done|sorted|sent|all good], {thanks}{end}
[same|me too|same here] [:(|:)|lol|tbh|as always]
k [cool|thx|fine|bye|{love}]
[cant|can't] [talk|chat] now, [bus|library|baby asleep|boss is looking], text me{end}
[happy birthday|hbd] {name}!! [have a lovely day|eat all the cake|you are old now lol] {love}
[home safe|got home|im home], [you|u]?
wait [what|for me|five minutes|im in the wrong {place}]{end}
[ill|i will] [be there at {time}|bring {food}|ask {name}|think about it]{end}
[see you|see ya|cu|bye] {name}{end}
[maybe|perhaps|we will see|let me think], depends on the [weather|{pet}|bus|{food}]{end}
[really|seriously|no way|oh no]?? poor {name}{end}
[ask|tell|text] {name} [pls|please|not me|first]{end}
[at the|im at the|still at the] {place}, [come|wait for me|back at {time}]{end}
[too tired|so sleepy|in bed already], [tomorrow|{day}]?{end}
[what time|wat time|when] [is|was] [the {show}|dinner|{sport}|{lesson}]?
[great|brilliant|lovely|perfect], [{day} then|{time} it is|see you all there]{end}
""",
    "friends making plans": """
{hi} {name}, [fancy|want] {food} at the [pub|cafe|market] on {day}?
{hi}! are {you} coming to the {show} on {day} or is it just me and {name} again
we are meeting at the {place} at {time}, bring {name} and [something to drink|a coat|{food}]
[shall|should] we say {time} at the {place}? i can bring the {thing}
{name} says {day} is no good for the {show}, how about {day}?
cant make it {day}, got [work|a cold|{sport}|the kids], can we do next week instead? sorry :(
im outside the {place}, cant see {you}, are you the one waving or is that a tree
who is bringing the {thing} on {day}? last time we had three and no {food}
table for {few} at {time}, under {name}. dont be late or i eat your {food}
do {you} want to go for a walk [later|after work|at {time}]? it finally stopped raining
[sorry|soz] i missed your call, was [in the shower|on the train|asleep], whats up?
{name} is moving house on {day} and needs {few} strong people. there will be {food}
lets skip the {place} and stay in, i make {food} and {you} pick the film
which bus goes to the {place}? i got on the wrong one and now i see cows
still on for {sport} {day}? my knees say no but i say yes
{hi} stranger, long time! coffee on {day}? i want to hear everything about the new flat
save me a seat next to {name}, i am {mins} minutes away with wet hair
ok new plan: {place} at {time}, {food} after, home before {name} starts to sing
the others voted for {food}. i voted for {food}. democracy is hard
are we still doing the {show}? {name} has not answered since {day}
{hi} {name} can we do {time} and not earlier, i need to walk the {pet} first
anyone up for a swim before breakfast? the lake is only a bit freezing
{name} and i are going to the {place}, meet us under the clock at {time}
i booked the tent for {day}, if it rains we sleep in {name}'s car
picnic in the park on {day}? i do the {food}, {you} do the blanket
lets play cards at mine on {day}, {name} is not allowed to shuffle
film starts at {time}, i will be the one with the loud snacks
do we need to dress nicely for the {show} or can i come as i am
my train gets in at {clock}, shall we go straight to the {place}?
what are you doing over the holidays? we thought of the sea, or my balcony
i can do {day} or {day} but not both, i need one day to lie down
change of plan, {name} has the wrong week. again. see {you} on {day}
are you bringing the {pet}? mine wants to know
breakfast on {day}? that little place with the {food} and the rude waiter
just got to the {place}, its packed, i will stand by the big plant
""",
    "friends just talking": """
how was the {show}? {name} said it was [so good|too long|a bit weird|full of people]
{laugh} i just saw {name} at the {place} talking to a [pigeon|statue|tree|shopping bag]
you will never guess who i sat next to on the [bus|train|plane]. {name}! with a {pet}!
i am so tired i put [salt|soap|{buy}] in my coffee and drank it anyway
my {pet} ate my {lesson} homework. really. i have a photo
finished the book you gave me, cried on the bus, everybody looked. {thanks}
do {you} think {name} likes me or just my {food}
what was that song we heard at the {place}? it goes da da dum da
guess what i passed my [driving test|exam|{lesson} exam]!!! [only|with just] {few} mistakes
new haircut. i look like a [mushroom|sheep|famous poet]. do not laugh on {day}
its so hot i am sitting in the [bath|fridge door|fountain] with a book
so cold here, the {pet} and i share one blanket and it is not fair sharing
i think i left my {thing} at yours, can {you} have a look? maybe in the {room}
found your {thing} under my sofa with {few} biscuits and a sock. want the sock too?
why is everyone called {name} in this [office|class|town], i shouted once and three came
had a dream that {name} was a [bus driver|king|talking {pet}] and i had no ticket
tell {name} i am sorry about the {dish}, i was hungry and it was there
i started {sport} today. i stopped {sport} today
the neighbours are singing again. {name} has joined in. send help or earplugs
been thinking about what {you} said, you were right, dont get used to it
{girl} cut her own hair. we must all be very brave and say nothing
what are {you} up to? i am watching rain
my train smells of {food} and i am not even sad about it
did you feel that? i think it was thunder, or {name} on the stairs
i walked past our old school today, they painted it yellow
do you remember that teacher with the whistle? he lives next door to {name} now
been up since {time} with the {pet}, we have watched the sun come up and half a fly
i am learning to whistle. the people on my bus are learning to be patient
you looked sad on {day}, everything all right?
i cooked {dish}. it is black. is it meant to be black
{name} is in love again, with a drummer, we will hear all about it
there is a fox on our wall and it looks at me like a headmaster
i have eaten so much {food} that i had to lie on the floor
yes i know i said no more plants. this one looked at me
how is the new flat? are the walls still the colour of old {food}?
my sister says hi, my brother says nothing, he has {food} in his mouth
just woke up from a nap, what year is it
i tried to take a nice picture of the moon, it is a white dot. here, a white dot
""",
    "family": """
{hi} love, dinner is at {time}, {food} tonight. bring your washing if you must. mum x
can you pick up {buy} and {buy} on the way home please, {love}
dad here. how do i turn off the big letters. I AM NOT ANGRY
mum did you see my {thing}? its not in the {room} and i looked everywhere, nearly
{kin} is visiting on {day}, please hide the [mess|biscuits|drum kit] and be nice
got to grandma's fine, she made {food} for ten people. there are {few} of us
please feed the {pet}, he has had breakfast but he will say he has not
ring your grandma, its her birthday. she is {few} years older than she says
did you eat? did you sleep? is it cold there? answer your mother {love}
tell your brother to come down, dinner is cold and so am i
dad can you fetch me from the {place} at {time}? bus didnt come again
landed safely, long queue, {kin} talked to everybody on the plane. call you tonight {love}
the baby said her first word. it was [no|{pet}|cake|more]. we are so proud
your room is now my sewing room. come home soon anyway {love} mum
who used the last of the {buy}? i am not cross, i just want a name
kids are in bed, house is quiet, what have they broken
grandpa fixed the [radio|clock|chair]. it is now a different [radio|clock|chair]
we are at the {place}, {kin} is lost, he says we are lost
took the {pet} to the vet, all fine, just too much {food}
can {you} help {kin} with the new phone on {day}? she has rung the fire service twice
put your coat on, it is snowing. i can see the weather where you are. mum
left some {food} in the fridge for {you}, top shelf, not the green box, the green box is old
mum says come at {time}, dad says come at {time}, so come whenever
the twins have painted the {pet}. it is water colour. it is also everywhere
thank you for the socks grandma, they are very warm and very orange {love}
uncle Bert fell asleep in the middle of his own story again
did grandpa take his pills this morning? the blue ones, with breakfast
{kin} wants to know if you still eat meat, and if not, why not, and since when
i am making your favourite on {day}, {food} with the crispy bits {love}
dad the {pet} is sitting on the remote and i cant reach it
we saw {girl} in the school play, she was the second tree, best tree of all
your sister got a tooth out, she wants to show you on {day}
what size are your feet now? i am knitting
little {name} cannot sleep without the bear, is the bear in your car??
mum how long do i boil an egg? and how do i stop it being on the ceiling
granddad planted {few} rows of onions and is telling each of them good night
ask your father, i said no already
sunday lunch at ours, {kin} brings the {food}, you bring yourself
""",
    "love": """
miss {you} already and the train has not left yet {love}
just wanted to say {love}
i saw the moon and thought of {you}, then i thought of cheese, then of you again {love}
sorry about this morning. you were right about the [map|money|milk]. {love}
cant wait till {day}, i bought the good {buy} and everything
you looked so nice tonight. even with {food} on your shirt {love}
our anniversary is on {day}. telling you now so that we both remember {love}
come home, the {pet} and i are both waiting at the door. only one of us barks
made {you} {food}, ate half of it, love you half as much as before? no, more
[thinking of you|dreaming of you], have a good day at work {love}
will you go to the {show} with me? as in go with me, as in, you know
i still have your {tool}. it smells of you. i am keeping it {love}
your side of the bed is cold and the {pet} has taken it {love}
i like your face. that is all. back to work {love}
{few} more days and then i can hold your hand at the {place} {love}
good morning sunshine, i left {food} on the table for you {love}
do you still love me if i tell you that i broke the {gadget}
i told {kin} about us. they laughed and said they knew {love}
you win, i love you. the prize is my half of the {food} {love}
""",
    "work": """
{hi} {name}, could you send me the notes from {day} before {clock}? {thanks}
meeting moved to {clock} in the small room, the big one has a [leak|wasp|birthday]
i am [ill|not well|in bed with a cold] today, {name} has the files, back on {day} i hope
train is stuck, will be in by {clock}, please start without me
who took my mug? it says {name}, my name is {name}, i want it back
printer is broken again. {name} spoke to it. it is worse
could you swap shifts with me on {day}? i can do your {day}
the report looks good, only page {few} is upside down. well done
customer at {clock} cancelled, so lunch is longer. {food}?
please remember to lock the {room} door tonight, i leave at {time}
{hi} boss, finished the list, going home unless there is something else
new person starts on {day}, name is {name}, be nice and hide the old coffee
can {you} cover the desk for {mins} minutes? dentist called, they have a gap
interview went well i think!! they laughed {few} times and only once at me
the office is closed on {day}, enjoy the long weekend
slides are done, {name} checked the numbers, see you at {clock}
{name} is leaving on {day}, card is in my drawer, please sign it
we are out of {buy} at the cafe, can you bring some from the {place}
thanks for helping with the boxes today, my back says thanks too
payday is {day}, rent is {day}, so i am rich for one night
{hi} {name}, running behind, please put me last on the list. there by {clock}
do you have the key to the store room? {name} thinks you have it, i think {name} has it
the coffee machine says no. i repeat, it says no
lunch at the {place}? i need to talk about {day} and not where {name} can hear
the boss liked your idea about the {place}, she told everybody it was hers
i have put the boxes by the back door, {name} will take them on {day}
who is in on {day}? i count {few} people and a plant
well that meeting could have been a short walk
can we finish the plan on {day} morning, my head is full of soup
the customer was happy, he shook my hand for {mins} minutes
there is cake in the kitchen, {name} turned forty and does not want to hear it
sorry for the late reply, i was on the shop floor all day. yes, {day} works
you left your lunch on my desk. it was {food}. was
night shift was quiet, {few} owls and {name} singing
i will be on holiday from {day}, {name} feeds the fish and opens the post
urgent for {name}: your account at the coffee tin is {price} short. the tin never forgets
""",
    "neighbours": """
{hi}, its {name} from number {house}. your {pet} is in our {room} again, he looks happy
your lights are on in the car, the blue one by the {place}
could we borrow your {tool} on {day}? we will bring it back, unlike last time
sorry about the noise tonight, {name} turned thirty and then turned up the music
there is no water on our street till {clock}, they are digging up the wrong pipe
bins are {day} this week because of the holiday, dont forget the green one
your {tool} blew into our garden, i put it by your door
would {you} water my plants from {day} to {day}? the big one is called {name}, he needs kind words
we have too many [tomatoes|apples|plums], please take some, bag is on the wall
street party on {day}, everybody brings a chair and some {food}
has anyone seen a small brown {pet}? answers to {name}, or to {food}
you left your keys in your front door, i have them, come round when you are back
{hi} from upstairs, was that your alarm at {time}? it has a nice tune, we know it well now
the lift is stuck again with {boy} in it, he says he is fine, he has {food}
somebody left a pram in the hall, could it go under the stairs? {thanks}
heard a crash from your {room}, is everything all right?
we made too much {food}, shall i bring a plate over?
your son kicked a ball through our window, no harm, he has a very good left foot
it is our turn to sweep the stairs this week, i do floors one to {few}
""",
    "deliveries they expected": """
{post}: your parcel {parcel} arrives today between {clock} and 18:00. No action needed.
your driver {name} from {post} is {few} stops away
{hi}, {post} here, i am at your door with a box, nobody in? i leave it with number {house}
parcel came while you were out, i signed for it. its heavy, did you order a horse? {name}, number
    {house}
{shop}: your order {code} is ready to collect. We are open until 18:00. Bring a bag.
{shop}: the book you ordered is in. We keep it for you until {day}.
the sofa comes on {day} between {clock} and 18:30, someone must be home, can {you}?
{post}: sorry we missed you. Your parcel is at the {place}, open from {clock}. Bring your card.
pizza guy here, which bell is yours? it is raining on your {food}
flowers arrived!!! they are beautiful, {kin} cried, thank you {love}
did my parcel come? it says delivered but {post} always says that
your groceries are on the way, driver {name}, {few} bags, sorry no {buy} today
order {code} from {shop} has been sent and should be with you on {day}
the man with the washing machine is here, which door does it go through? none, i think
{hi}, driver here, i cant find number {house}, is it the house with the red gate?
the {tool} i ordered has come and it is tiny. it is for a doll. i am keeping it
can you take in a box for us on {day}? we are at {kin}'s till {day}
milk man left {few} bottles and a note that says sorry about the gate
new bed came in {few} boxes with {few} screws missing, sleeping on the boxes
your table is finished, shall i bring it on {day}? needs two to carry. {name} the carpenter
""",
    "appointments": """
Valley Clinic: you have an appointment with Dr Moss on {day} at {clock}. Reply C to cancel.
reminder: dentist {day} {clock}. please come {mins} minutes early
your {pet} is due for a check at the vet on {day} at {clock}. please bring the blue card
{hi} its {name} from the hair place, can we move you to {clock} on {day}? {thanks}
your glasses are ready, you can come in any day before {clock}
Dr Moss is running {mins} minutes late today, sorry for the wait
the plumber can come {day} at {clock}, will {you} be in?
your car passed its test, ready after {clock}. it needs new tyres soon
eye test on {day} {clock}, do not drive yourself home after the drops
library: the book you wanted is back. we hold it for you for {few} days
library: {few} books are due on {day}. you can keep them longer at the desk
blood test results are all normal. no need to ring us. Valley Clinic
piano lesson moved to {day} {clock}, please tell {name} to practise, just once
the nurse can see you at {clock}, come to the side door and bring a list of your pills
i have a dentist thing at {clock} so cant do lunch, and then cant do chewing
Salon Rosa: see you on {day} at {clock}. If you are late we have to cut faster.
hello, {name} from the garage, we found the noise, it was a spoon. ready at {clock}
when was your last tetanus jab? the doctor asks and i have no idea
the chimney sweep comes {day} at {clock}, please cover the sofa and the {pet}
swimming lesson for {name} is on {day} at {clock}, dont forget goggles
driving lesson at {clock}? meet me at the {place}, and breathe. {name}
vet says {pet} is fine and only wanted company, see him again in {few} months
""",
    "school and study": """
Valley School: no lessons on {day} afternoon, children go home at {clock}.
{name} forgot the {lesson} book, could you drop it at the school office
what did we get for {lesson} homework? i wrote it on my hand and then washed
can i copy your {lesson} notes? i was there but i was not there, you know
school trip on {day}: warm clothes, packed lunch, no phones, be at the gate by {clock}
{boy} has a bit of a fever, please come and fetch him when you can. school office
exam is in room ## at {clock}, bring a pen and hope
parents evening is on {day}, the {lesson} teacher would like to see you. nothing bad!
study group at the {place} at {time}? {name} understands chapter {few}, i understand nothing
we got a B in {lesson}!! {name} says we are clever, i say the teacher was tired
the {lesson} teacher is ill so we have an hour to do nothing, come to the {place}
please sign the form for the swimming course and put it in {name}'s bag
i have read the same page {few} times and it still says nothing. coffee?
lecture moved to the big hall, sit at the back, i have {food}
whats the page for {lesson}? i was looking at a bird
miss, {name} is ill today and cannot come to school, we send the homework later. {kin}
do we have {lesson} first or {lesson}? i packed both and cannot lift my bag
the test was so hard, question {few} was just a picture of a triangle
Valley School: choir sings on {day} at {clock}. Families are welcome. Tea after.
my essay is {few} pages too long, can i make the words smaller?
have you started revising? me neither, good, lets not start together at the {place}
{girl} got the main part in the school play!! she is a potato, but the main one
pls bring my sports bag, its in the hall, i have {sport} after lunch
i sat next to {name} in {lesson} and we laughed so much that we had to stand outside
who has the lab coat with my name? mine now says {name} and smells of eggs
""",
    "sport and clubs": """
training is at {clock} on {day}, wear something warm, the field is a lake
we lost [1|2|3|5|9] - 0 but {name} ran very nicely in the wrong direction
{sport} on {day}? we are only {few} and need one more
match called off, too much snow, go back to bed
well played today everybody, showers are cold, {food} at mine
choir is at {clock}, we sing the sad one first, bring water
who can drive to the match on {day}? i have room for {few} and a drum
{name} hurt a toe at {sport}, is there ice in the {room}?
ran [3|5|8|12] km today, legs have left the group chat
dont forget your boots and the orange slices, its your turn. coach {name}
book club on {day}, i have read the first page and the last page, that is plenty
garden club meets at {clock} to talk about slugs. bring gloves, not slugs
kick off is at {clock}, be there at half past to help with the nets
{name} is in goal, {name} is in bed, so we play with ten
good run this morning, same hill on {day}?
my arms hurt from {sport}, i had to eat {food} with a straw
coach says thank you for the lifts and sorry about the mud
chess night moved to the {place}, {name} forgot the queens, bring queens
who has the team shirts? they need a wash, they can nearly walk
dance class was fun, i stepped on {name} only {few} times
we climbed to the top and saw nothing but fog. lovely fog though
""",
    "house and errands": """
the {room} light is broken again, do we have a bulb or do we have candles
i am at the shop, do we need {buy}? answer fast i am at the till
get {buy}, {buy} and {buy}. not the cheap one. {love}
washing machine is making the noise again. i sang back. it stopped
did {you} lock the door? i am on the bus and now i am not sure
heating man came, he says its [the pump|the pipe|very old], back on {day}
rent is due {day}, i put my half in the tin in the {room}
there is a spider in the {room}, i live outside now
your turn to take the bins out, i did it the last {few} times
i burned the {food}. windows are open, dont worry about the smell
the tap in the {room} drips, i put a pot under it and now it plays a tune
can you get a stamp and post the letter to {kin}? its by the door
iron is off, windows are shut, i checked twice, stop worrying and enjoy the {show}
where do we keep the candles? asking in the dark
the {pet} has been in the flour. the {room} is white. the {pet} is white
i painted the {room} door and then leaned on it
bring the washing in, big black cloud over the {place}
need anything from the market? they have nice {buy} and {name} has a stall
the {dish} is in the oven, take it out at {time}, use gloves this time
i moved the sofa. i moved it back. my day so far
""",
    "feelings, sorry and thanks": """
{hi} {name}, just checking you are ok after yesterday. i am here if {you} need me
im really sorry i forgot your birthday, i am a bad friend and i owe {you} {food}
thank you for listening last night, it helped a lot
so sorry to hear about {kin}, thinking of you all {love}
i was rude at the {place}, i was hungry, it is no excuse but it is the reason
dont be sad, tomorrow is another day and there will be {food}
feeling much better today, the soup worked, or the sleep, or both
i am proud of you {name}, that was not easy and you did it
i got the job!!!! i start on {day}, tell {kin}, tell everyone
bad day. spilled tea on the {lesson} books and missed the bus {few} times
you were right about {name}, i was wrong, please enjoy this message, it is the only one
thanks for the lift, and for not laughing when i cried at the {place}
i am so nervous about {day} that i cleaned the whole {room}
i shouldnt have said that about your {dish}. it was fine. it was hot
it was so good to see your face again, lets not wait another year
i know it is hard now. one day after the other, and {food} in between
sorry i was so quiet last night, long week, small head
you made my day with that card, i put it on the fridge next to the {pet}
happy new year to you all, may it bring health and good {food}
get well soon {name}, the {place} is boring without you
how is {kin} doing after the fall? give a big hug from all of us
""",
    "travel": """
train leaves at {clock} from platform #, i have the tickets and {few} sandwiches
we are here!! sea is cold, {name} is already in it
flight is late by {mins} minutes, so now i know everything about the airport shops
can {you} pick me up from the station at {time}? i have {few} bags and a plant
took the wrong road, seen the same {place} {few} times, {name} says turn left
hotel is nice, bed is hard, breakfast has {food}. wish you were here
bus {few} is not running today, walk with me? leaving at {time}
where did we park? i remember a tree and that you said remember the tree
got the window seat, saw {few} castles and a {pet} on a roof
on the ferry, waves are big, {name} is green, the gulls have our {food}
we crossed the border and nobody looked up, not even the {pet}
walked {few} hours up, took one photo, walked down, feet say never again
do i need boots for the island or are shoes all right?
the map is wet and the guide is lost, so this is a real adventure
next stop is yours, wake up {name}
the train is so full that i am reading another man's newspaper
just passed {place} number {few}, be with you before {time} if the tyre holds
back on {day}, brown as a nut, broke as a plate
""",
    # The words of spam in honest mouths: free, win, prize, cash, urgent, account, loan, link.
    "tricky: free, win and prizes": """
FREE {food} tonight at {name}'s!! [bring drinks|be quick|come hungry]
are {you} free on {day}? i have {few} tickets for the {show}
omg WE WON!!! # - # and {name} got the prize for best player
i won a [teddy bear|giant spoon|bottle of wine] at the school fair, first prize I ever got
free at {time}? call me, nothing bad, i just want to talk about {name}
{name} won the cake prize at the fair with MY recipe, i want half of the prize
congratulations {name}!!! a little girl! {few} kilos! we are so happy for you {love}
we have a spare ticket for the {show}, free to the first who says yes
CONGRATULATIONS on the new job, now you can pay for the {food} haha
if i win the lottery i will buy you a {gadget}, until then here is some {food}
they give away free {food} at the {place} today, the queue is long, hurry up
guess who is the winner of the office quiz? not you {laugh}. {name}, by one point
your {gadget} is nicer than mine, i claim it as a birthday present. last chance to hide it
its {name}, i have free minutes left this month so call me any time and we can chat
the school draw: your ticket ### won a basket of {buy} and soap. pick it up at the office
is this seat free? asking for my {pet}, who paid for a ticket and everything
i put us in the draw at the {place}, the prize is a pig. please let us not win
buy one get one free on {food} at {shop}!!! i got eight. come over
{name} says the winner gets the {gadget} and the loser gets the washing up. are you in?
won {price} on the horses, lost {price} on the horses, had a lovely day
our {pet} has {few} babies now and they are all free, and so are the stairs they sleep on. want one?
tap water is free, {name}. stop paying {price} for it at the {place}
""",
    "tricky: money among friends": """
can {you} lend me {price} till {day}? i left my card at the {place}
i owe you {price} for the {show}, cash or {food}?
please send me {price} for {name}'s present, same account as last time, {thanks}
dad i need a small loan, {price}, my {tool} broke and i am out of money
got paid!!! cash in my hand, {dish} is on me tonight
{name} paid for everybody, thats {price} each, no hurry
just sent the {price} to your account, tell me when it is there
how much was the {gadget}? i sold my old one for {sum} in cash, what a deal
mum can {you} pay the {sum} for the school trip by {day}? the account is on the form
we got {sum} back from the tax office!! new {gadget} or something boring like a roof
they want {sum} a month for that flat, with no {room}. call me when you stop laughing
sorry to ask again but the rent is {sum} and i am {price} short, can i pay you back on {day}
{bank} gave me a loan for the roof, so please visit while the rain still comes in
who paid for the taxi? if it was you i have cash, if it was {name} i have excuses
the man at the market wants {sum} for that {gadget}. offer him {price} and walk away slowly
can i pay you in {food}? my card says no and so does my other card
pocket money is late again dad, i am sending you a final warning and a kiss
we put {price} each in the pot for {name}'s leaving present, send yours to my account by {day}
found {price} in my winter coat. i am rich. lunch?
""",
    "tricky: urgent and please call": """
URGENT: we are out of {buy}. i repeat. OUT OF {buy}
please call me urgently, the client on {day} changed everything. {name}
call me when you get this, its about {kin}, nothing serious but call
{name} here from work, your phone is off, call the office now please, urgent
URGENT does anyone have a {tool} i can use in the next {mins} minutes
this is {name}, new number! the old phone fell in the lake. save this one {end}
my phone died, writing from {name}'s number, meet at the {place} at {time}
{hi} its mum, i am on {name}'s phone, i lost mine. dinner is still at {time}
ring {kin} on {phone} now please, he is waiting at the {place}
last chance to sign up for the trip, tell {name} today or you stay with the {pet}
important!!! do not open the {room} door, {name} is hiding there for the surprise
call {phone} and ask for {girl}, she can fix the {gadget} today
plumber's number is {phone}, say i sent you and he will not charge for the visit
can you reply to {name} please, the offer for the flat ends today and we must decide now
pick up pick up pick up!! there are tickets for the {show} again and my phone is nearly dead
act now if you want {food}, {name} is holding the last plate and looking at it
the school rang, {name} is fine but the {pet} is in the class room. who can get there before
    {clock}?
call everyone back, the {tool} was on my head
i need your answer today about the flat or they give it to a man with {few} drums
dont ring the bell, baby asleep, urgent news at the window instead
your {gadget} rang all through the film so i answered. call {kin}, it is about {food}
""",
    "tricky: codes, links and accounts": """
{name}'s code for the door is {code}, dont tell the whole street
the code came to my phone again: {code}. are you logging in to my account for the films? mum
here is the link to the photos from {day}: {page}
click on this link {name}, it is a {pet} playing the piano, you need it today {page}
can you check if your account still works? mine says wrong password, i think {name} changed it
wifi password is {food}{code}, guests only, no neighbours
sign up for {sport} here {page} before {day}, only [10|15|20|30] places
i forgot the password again, can you reset my account please? {name} from the second floor
this is where we are: {page} turn right at the {place}
Your login code is {code}. We will never ask you for it.
form for the trip is at {page}, please fill it in by {day}. Valley School
got a text that my parcel is held and i must click a link, is that a scam? looks fake to me
they say my account is blocked and i should call {phone}. its spam right? dad
do not answer the text about a free {gadget}, {kin} did and now there is a bill
what is the password for the house? i mean the rhyme, the kids will not let me in
{name} sent the link twice and both times it is how to make {food} {page}
code for the bike is {code}, bring it back with air in the tyres please
log in to the choir page and click on yes, or {name} will think nobody sings {page}
all our holiday pictures are here now, sorry about number {few}: {page}
the {lesson} quiz is online till {day}, the link is on the board and now also here {page}
i opened an account for {girl} at {bank}, she put a tooth and {price} in it
""",
    "tricky: real firms, real reminders": """
{bank}: reminder of your appointment with {name} on {day} at {clock} at our town office.
{bank}: your new card is on its way and should arrive by {day}. You do not need to do anything.
{bank}: {price} was paid at {shop} today. If this was you, no reply is needed.
{mobile}: your bill of {price} is ready and will be paid from your account on {day}.
{mobile}: you have used {percent} of your data this month. It starts again on the 1st.
{shop}: thank you for your order. Your refund of {price} will be in your account in {few} days.
Valley Clinic: your prescription is ready. It is free for children. Open until 17:00.
{shop} has {off} off all {lesson} books until {day}, see you in the shop. {name} at the till
Town office: your new passport is ready. Please bring the old one. Closed on {day}.
{post}: we have your parcel {parcel}. There is nothing to pay. Delivery on {day}.
{hi}, {name} from {shop}, you left your card on the counter, we keep it safe for you
Valley Club: your subscription ends in {few} weeks. Talk to {name} at the desk to stay with us.
Thank you for your job application. We would like to meet you on {day} at {clock}. {shop}
your taxi is here: grey car, driver {name}, {price} cash or card
{bank}: our office by the {place} is closed on {day} for painting. The cash machine works as always.
{post}: from {day} your letters come before noon. Your new driver is {name}.
{mobile}: no phones on your street on {day} from {clock}, we are mending the line. Sorry!
Town office: you voted, thank you. The result is on our door from {clock}.
{shop}: the {tool} you asked about is back, {price}. Shall we put one aside? Just reply with your
    name.
Tax office: your form has arrived. There is nothing to pay and nothing to do until next year.
Your energy bill for this month is {price}, less than last year. Well done. Questions? {name},
    {phone}
""",
    "tricky: jokes in the style of spam": """
Dear customer, you have won one free hug. collect it at home. {love}
WINNER!! you have been selected to do the dishes tonight, reply YES to claim
this is your {pet}. my bowl is empty. this is my final notice. urgent
congratulations you are the 1000th person to ask me that today {name}
limited offer: one [brother|uncle|cousin], slightly used, free to a good home {laugh}
hot singles in your area: me, because the heating is stuck again {laugh}
i am a rich prince and need your help. with the {room}. it needs paint. {dish} is your reward
your account of biscuits is empty. please pay in at once. the tin
you have {few} new messages from your bed. it misses you and offers {percent} more pillow
warning: a package of {food} is held by me on the sofa. to release it, pay one kiss
Dear sir or madam, your washing has been selected. It is wet. Claim it from the machine
earn {price} in {mins} minutes, no skills needed: hold the ladder while i fetch the cat
this is the sock police. we have found {few} of yours under the table. call your mother
invest in {food} today, by noon it will be gone. i know because i eat it
lose {few} kilos at once!! put down the {pet}
""",
}

# --- spam: what nobody asked for -----------------------------------------------------------------

SPAM: dict[str, str] = {
    "prizes": """
[CONGRATULATIONS|Congratulations]! You have won a {gadget} worth {sum}. Claim your prize at {link}
WINNER! Your number was selected in our weekly draw. Call {phone} to claim {riches} cash.
Dear customer, you are our lucky visitor today. Your free {gadget} is waiting: {link}
You have {few} unclaimed prizes! Reply WIN to {short} before midnight. {price} per text.
FINAL NOTICE: your {riches} prize will be given to somebody else. Claim code {code}. Call {phone}
{shop} gives away [20|50|90] gift cards worth {sum} each! Tap to get yours {link}
Spin the wheel and win up to {riches}. Every player wins! {link}
Good news! Your phone number has won {riches} in the world lottery. Send your full name and
    address.
Text {food} to {short} for a chance to win a holiday for {few}. 18+, {price} per entry.
Your shopping ticket {code} was drawn! Collect {sum} now, offer ends today: {link}
Hello {name}! You are one of [10|20|50] lucky customers of {shop}. Your reward is ready: {link}
YOU WON!! A brand new {gadget} is reserved for you, only pay {fee} for delivery: {link}
Your code {code} won our grand prize of {riches}. To collect, call {phone} today. 18+
Knock knock. Who is there? {riches}, and it is yours if you ring {phone} before {time} today.
hi {name}, {kin} put your name in our draw and you came first!! pick up your {gadget} here {link}
Only [two|three|four] names are left in the hat and one of them is yours. Text HAT to {short},
    {price} a go.
We tried to ring you about the {gadget} you won on {day}. Nobody in? Send your address to {phone}
LUCKY STAR: the numbers {few}, ## and ## are yours tonight. Open {link} and see what they bring.
Everybody gets a present this week at {shop}. Yours is behind door number {few}: {link}
The winner of last month never answered, so the {gadget} goes to you. Say yes by {clock}: {link}
Scratch the card on your screen: a {gadget}, {riches} or a kiss from {name}. Start at {link}
Your ticket for the {show} was number ####. That number has just won {sum}! Ring {phone}, {price} a
    minute.
a small bird told us that you like {food}. win a year of it, just text YUM to {short}
Game night! How many legs has a fish? Send A for none or B for six to {short}, {price} a try,
    {riches} to win
Dr Moss from the prize office here. Your cheque over {riches} is signed. Where shall we post it?
    {phone}
""",
    "loans and money": """
Need cash fast? Loans up to {riches}, bad credit welcome, paid today. {link}
You are approved for a loan of {riches} at only {percent}. Reply YES to get your money.
Drowning in debt? We can write off up to {off} of it. Call {phone} for free advice.
Cash in your account in {mins} minutes. No checks, no questions. Apply at {link}
Had an accident? You may be owed {riches}. Reply CLAIM or STOP to end.
Our records show you are owed {sum} for your old insurance. To claim, text YES to {short}
Cut your energy bill by {off} with a government grant. Limited places. {link}
Sell your old {gadget} for instant cash! Best price promised. {link}
Use this link to see how much you can borrow, up to {riches}: {link}
Home owners! Lower your monthly payments today, rates from {percent}. Call {phone} now
Payday far away? Borrow {sum} today and pay back later. Instant answer at {link}
Your credit card with a {riches} limit is ready. No credit check. Activate now {link}
Still paying too much for insurance? Save {off}, get a free offer at {link}
the fridge is empty and the rent is due? we send {sum} before dinner, ask for {name} on {phone}
No bank will talk to you? We will. {riches} for any reason, even a {gadget}. {link}
Same house, same street, {percent} cheaper. We can move your home loan in {few} days: {link}
Put all your bills in one basket and pay only {price} a week. {name} shows you how: {link}
Gold, watches, old rings: post them to us and we pay {sum} the same day. Free bag at {link}
{name}, the form you started on {day} is nearly done. One more click and {riches} is yours {link}
Did somebody sell you insurance with your {gadget}? Then {sum} could come back. Text BACK to {short}
Bad year? The rules have changed and most of what you owe can be forgotten. Call {phone}
Why wait for summer? Take the holiday now and pay us {fee} a day. Answer in {mins} seconds at {link}
hurt your back at work or fell at the {place}? no win, no fee. send FALL to {short}
We have put {sum} aside for you until {clock}. Tell us where to send it: {link}
Students! Books and {food} cost money. {sum} in your pocket today, nothing to pay till you have a
    job {link}
""",
    "fake parcels": """
{post}: your parcel {parcel} is held. Pay the fee of {fee} to release it: {link}
{post}: we could not deliver your package. Confirm your address within 24 hours {link}
Your package is waiting at customs. A charge of {fee} is due. {link}
Delivery failed! Wrong house number. Update your details here: {link} {post}
Last warning: parcel {parcel} will be returned to the sender. Book a new delivery at {link}
{post}: your driver {name} tried to deliver today. Choose a new day and pay {fee} at {link}
Track your order {parcel} with this link {link} and install our app to get it faster
Your parcel {parcel} has an unpaid customs fee. Pay {fee} today or it will be destroyed {link}
{post}: address not complete, delivery stopped. Please confirm your details now: {link}
{post} customer: a package worth {sum} has no name on it. Is it yours? Claim it here {link}
Hi, this is {name}, your driver. The box does not fit through your door, choose a new time here
    {link}
{post}: the paper on your box got wet and we cannot read it. Please write your address at {link}
Three times we rang your bell! {post} will sell the box on {day} unless you pay {fee} {link}
your {gadget} is here but it needs a stamp of {fee}. buy the stamp: {link} {post}
A heavy parcel from over the sea is in our store room in your name. It costs {fee} a day. {link}
{name}, our van is near the {place} with something for you. Tap {link} so that {post} can find your
    door
Sorry, the machine says your street is wrong. Mend it in {mins} minutes or the box goes back {link}
{shop} sent you a {gadget} but nobody paid the post. {fee} and it comes on {day}: {link}
MISSED CALL from {post}. To hear what the driver said ring {phone} ({price} a minute)
one thing in your order was too big, so {post} needs another {fee} by card. {link} {thanks}
Your parcel is sitting in the rain at the {place}. Let it in! {link}
Photo of your parcel: {link} Is this your door? If not, tell {post} within an hour.
""",
    "account blocked": """
{bank}: your account is blocked. Verify your identity now at {link}
{bank} ALERT: a payment of {sum} was made from your account. Not you? Go to {link}
Your {mobile} bill could not be paid. Update your card details to avoid being cut off: {link}
Security warning! Someone logged in to your account. Change your password at {link}
Your card ends in #### and has been suspended. Call our security team on {phone}
{shop}: we had a problem with your last payment. Your membership stops today. {link}
Unusual activity found. To keep your account open, confirm your password within {mins} minutes
    {link}
A new device was added to your {bank} account. If this was NOT you cancel it here {link}
Your mailbox is full. Log in at {link} or all your messages will be deleted
Your phone has {few} viruses! Tap the link and clean it now with our free app: {link}
{bank}: unusual login from a new [phone|tablet|laptop]. Your card is blocked until you confirm at
    {link}
Dear {bank} customer, your online access ends on {day}. Update your details now: {link}
{mobile}: your number will be switched off in 24 hours. Verify your identity here {link}
Your cloud storage is full and your photos will be deleted today. Upgrade now at {link}
{name} has just asked to take {sum} out of your {bank} account. Say no here: {link}
We have seen you in two towns at once. Please show {bank} that you are you: {link}
Too many wrong passwords. {shop} has locked the door, open it again with your card at {link}
{bank}: new rules from {day}. Everybody must send a photo of their card, front and back. {link}
your phone card is too old. tell us the long number on it by {day} or there is no more {mobile}
This is the safety team at {bank}. Move your money to a new account while we look. Ring {phone}
Your films stop at {time}. The {fee} did not arrive. Give us another card and go on watching: {link}
Are you still there? Accounts asleep for {few} months are closed on {day}. Wake yours up {link}
the green button in the {bank} app has moved. press the new one at {link} and log in with your old
    code
Somebody in your house knows your password and it is not the {pet}. Change it before bed: {link}
Hello, {mobile} here. Your bill was paid twice! For the money back log in with your bank at {link}
Urgent: the lock on your {gadget} is out of date and a stranger can read your texts. Mend it: {link}
""",
    "tax and state": """
TAX OFFICE: you are owed a refund of {sum}. Claim it before {day}: {link}
You have an unpaid parking fine of {price}. Pay now at {link} or it doubles.
Government support: you can get a one time payment of {sum}. Apply today at {link}
Final tax warning. A case is opened in your name. Call {phone} at once to avoid court.
Your road tax payment failed. Avoid a fine of {riches}, update your details at {link}
Your tax refund of {sum} is ready. Enter your bank details to receive it: {link}
Urgent: energy support payment of {sum} not claimed. Last day {day}. Apply now at {link}
Toll road: you have an unpaid charge of {fee}. Pay today to avoid a fine of {sum} {link}
POLICE: your car was seen going too fast near the {place}. See the photo and pay {price}: {link}
Town office: your bin was too full on {day}. The fine is {fee}, after the weekend {sum}. {link}
You paid too much road tax for your old car. {sum} is lying at our desk, fetch it at {link}
hi {name}, urgent news from the tax office. send us your card number so that we can pay you back
    {sum}
Every home on your street gets {sum} for heating. Yours is the only one that did not ask. {link}
The court has a letter for you and you will not like it. Ring officer {name} first, {phone}
Your health card ends on {day}. A new one is free, the post costs {fee}. Order it: {link}
Parents! There is {sum} for each child this year. Tell us their names and your bank at {link}
Your passport number has been used by a stranger. Press 1 for an officer or ring {phone}
Want to vote on {day}? Your name is not on the list. Put it there for {fee} in {mins} minutes {link}
A cow is free but a {pet} costs tax. Pay {fee} by {day}, before the man comes to count. {link}
Did you work at home last year? Then the state owes you for the chair. {sum}, ask at {link}
""",
    "subscriptions and ringtones": """
Get the funniest ringtones for your phone! Text TONE to {short}. {price} a week until you send STOP
Your free trial has started! {price} per week from {day}. To stop text END to {short}
New ringtone of the {pet} that sings! Reply YES for a free tone. Then {price} per week.
Thank you for joining Daily Horoscope, {fee} per message. Help? {phone}. Stop? Text STOP to {short}
You have used none of your free games. Download [100|200|300] new games at {link}
Upgrade to a new {gadget} with {mobile}! Double minutes, free texts. Call {phone} today
Unlimited films on {shop} for {fee}! Offer ends tonight, order at {link}
Chat line: you have {few} new voice messages waiting. Call {phone} now, {price} per minute.
Send JOKE to {short} and get a new joke on your phone every day! {price} per week. Text STOP to end
Your {shop} subscription could not be renewed. Update your payment today: {link}
Hot new ringtones and games! Get {few} free when you join now. Text GO to {short}, {price} per week
Win at bingo every night! {sum} bonus for new members. Join now at {link} 18+
Your stars for {day}: money comes, love comes, {price} a week goes. Text STAR to {short}
Make your phone bark, sing or cry! Send BARK to {short}, {fee} a noise, STOP ends it
Welcome to Quiz of the Day! You did not ask, we know. {fee} each morning. To leave ring {phone}
what will you look like at ninety? send a photo and AGE to {short}. costs {price} and some tears
Put a dancing {pet} on your screen tonight. DANCE to {short}, first dance is on us, then {price}
All the football on your phone, every goal, every fall: {price} a month from {mobile}. GOAL to
    {short}
Hello from your new club! {name} signed you up. {few} texts a day, {fee} each. Not happy? {phone}
The song from the {show} can ring in your bag before your friends have it! {fee}, SONG to {short}
Are you cleverer than {name}? Test your head, {fee} a question, send HEAD to {short}
Your month of films with {shop} was free. The next {few} are not, {price} each. Stay or go: {link}
Learn {lesson} while you sleep, one text each night, {fee}. Say LEARN to {short}
Good morning! Today's weather by text was {fee}. So is tomorrow's. Send DRY to {short} to leave.
""",
    "crypto and investing": """
{coin} is going to the moon! Invest {sum}, get {riches} back in a week. {link}
Our robot trades {coin} while you sleep. Members made {off} profit last week. Join {link}
I turned {sum} into {riches} with {coin} and you can too. Free course at {link}
Your wallet got a bonus of 0.## {coin}. Withdraw before {day}: {link}
VIP group: secret tips on {coin}, {percent} a day guaranteed. Only [10|15|20|30] places left {link}
Double your {coin} today! Send any amount and get twice back. Limited offer.
Buy {coin} now before the price explodes! New members get a {sum} bonus. {link}
Experts say {coin} makes you rich. Start with {sum}, profit guaranteed. Join now {link}
Your {coin} account has a balance of {riches}. Log in and withdraw now: {link}
My {pet} bought {coin} in spring and now we live by the sea. Ask me how: {link}
{name} left the office at noon and never came back. Why? {coin}. Read it here {link}
the banks do not want you to read this page about {coin}: {link}
{coin} sleeps today and wakes up on {day}. Be inside before it opens its eyes. {phone}
Ten people from your town hold {coin} worth {riches} each. There is one chair left {link}
Your uncle laughs about {coin}. Your uncle takes the bus. Start with {price} at {link}
We opened a wallet for you and put {sum} in it. The key is {code}. Come in: {link}
No time to trade? Lend us {sum} and we send {percent} every {day}. Text GROW to {short}
The cook from the television has left his kitchen for {coin}. His lesson is free at {link}
Lost money with {coin}? We find it again for a small fee of {fee}. Call {name} on {phone}
Rent, bills, {food}: all paid by a little machine that buys low and sells high. Get one at {link}
hey all, i can take {few} more people into my gold and {coin} group. cash only, write to {phone}
""",
    "jobs": """
Work from home and earn {sum} a day! No skills needed. Message us on {phone}
Earn extra cash just by liking videos. {price} for every like, paid daily. {link}
We saw your profile and have a job for you: {mins} minutes a day, {riches} a month. Reply JOB
Be your own boss! Our members make {riches} every month. Start now, free kit: {link}
Part time helpers wanted! No interview, pay every day, {sum} per week. Text JOB to {short}
Hiring now! Earn {sum} per day from your phone, no experience needed. Apply at {link}
You are selected for an online job. {price} per hour, paid daily in cash. Reply YES to start
Mystery shoppers wanted! Get paid to visit {shop}. Free to join, earn {sum} a week {link}
Can you hold a {gadget}? Then you can work for us. {sum} a day, ask {name} on {phone}
Mums and dads! The {mins} minutes while the baby sleeps are worth {price}. See {link}
WANTED: people who like {food}. Eat it, write two lines, get {sum}. Start at {link}
Your letter reached us and the answer is yes. Pay {fee} for the work coat and begin on {day} {link}
hi, {name} from the job office, are you still looking? nice people, good pay, answer A or B
Take boxes in at home and send them on. {price} a box, nobody looks inside. Text BOX to {short}
They laughed when I left school. Now I count money all {day}. Let me teach you: {link}
Urgent! Typing at night, {fee} a page, as many pages as you can stand. First buy our lesson at
    {link}
{mobile} needs voices! Talk on the phone in bed for {price} an hour. Call {phone}
New in town? Driver, cook, cleaner, no papers needed, {sum} each week in your hand. {phone}
Tired of your boss? Send him this text by mistake and come to us. {riches} in the first year. {link}
Put our name on your car and drive as you always do. {sum} a month! Photo of the car to {phone}
""",
    "dating": """
{few} people near you want to meet you tonight! See their photos {link}
Someone has a secret crush on you. Find out who! No link, just call {phone}, {price} per minute
Lonely? Sweet singles in your town are waiting for your message. Join free {link}
{name} sent you a private photo. Open it here before it is deleted: {link}
Meet your perfect match in {mins} minutes. Text LOVE to {short}, {price} per text, 18+
Hi, I am {name}, I saw your photo and want to chat. My private page is here: {link}
New message from a secret admirer! To read it text MEET to {short}, {price} per message
Join the dating app of the year, free this week, then {price} a month. {link}
You walked past me at the {place} on {day}. I was the one in the green coat. Find me: {link}
{girl}, 2#, likes {food} and you. Write to her on {short}, {price} a text.
Nobody to watch the {show} with? {few} hearts round the corner are free tonight {link}
i dont know how to say it so i wrote it here {link} your secret somebody
Your grandma would like {boy}. So would you. Talk to him now on {phone}, {price} a minute
A red flower was sent to your number. Who from? Text ROSE to {short} and guess. {fee} a guess
We asked the stars and they said {name}. Meet your star on {link}, first month free
{name} looked at your picture {few} times last night. Look back! {link}
Over forty and happy to walk in the rain? So are the others at {link}. Women free till {day}.
good evening, i am {girl}, i cook well and travel alone. answer me only here: {link}
Kisses are waiting for you, {name}. Open them with code #### on {link} (18+)
One text and you are not alone on {day}. HUG to {short}. Costs as much as a cake: {price}
""",
    "miracle pills": """
Lose {few} kilos in a week with the magic {food} diet! Doctors hate it. {link}
Miracle pills now {off} off! Sleep better, feel younger. Order now {link}
Hair growing back in {mins} days or your money back! Try a free bottle {link}
Pain in your knees? One drop of this old secret and you dance again. {link}
Eat all the {food} you like and lose weight! Free sample, pay only {fee} delivery {link}
Young skin at any age. Cream of the year, {off} off today only. Order at {link}
Stop snoring tonight! Our magic ring is {off} off, order now and get one free {link}
Doctors are amazed: new pills melt fat while you sleep. Free trial at {link}
{kin} threw the glasses away after {few} days of our onion drops! Buy yours at {link}
No hair? Not for long. Put it on, wait for {day}, comb. {price} at {link}
The tea that eats your belly. Two cups a day, {price} a box, ring {phone}
your knees are old but you are not. try the cream that smells of {food}, first pot free {link}
Why do people in the hills live so long? It is in this bottle. {off} off until {clock}. {link}
Cannot sleep? Cannot wake up? One blue pill for each, no doctor, no questions, {price} {link}
Put our stone in your shoe and your back stops crying. Last {few} stones at {link}
{name}, 5#, looks like 3#. The trick costs less than {food}. Text FACE to {short}
White teeth by {day} or we eat the brush. Order for {price} at {link}
Big arms without {sport}! Just one spoon of it in your milk. See {link}
We wrote you {few} letters about your weight. Now a friendly text: {link} It works.
Never be ill again this winter. {shop} has the honey that doctors keep for themselves {link}
""",
    "surveys and deals": """
Take our {mins} second survey and get a {gadget} for only {fee}! {link}
How happy are you with {mobile}? Answer {few} questions and win {sum}. {link}
MEGA SALE! Designer watches {off} off, today only. {link}
Luxury holiday for {few} from {sum}! Last rooms. Book now {link}
Solar panels for free! Check if your house can get them: {link}
Your car warranty is about to end. Press 1 or call {phone} to extend it today
Cheap phone cards, call anywhere for 1p a minute! Text CARD to {short}
Only today: {gadget} for {price}! Limited stock, order now at {link}
You have been chosen for a {shop} survey. Get a {sum} gift card for your answers {link}
Win a family holiday worth {riches}! Just answer one easy question at {link}
Last chance! Get {off} off every {gadget} at {shop}. Offer ends {day} {link}
Old shop closes and everything must go: a {gadget} for {price}, a {tool} for less. {link}
Do you sleep on your back or your side? Tell us and a pillow is on its way, you pay {fee} {link}
HALF PRICE DAY at {shop}. Bring this text or use {code} at {link}
New windows for your {room}! If you sign on {day} the {few} small ones cost nothing. {phone}
Which {gadget} would you like to test? Test it, keep it, tell nobody. {link}
Your phone is slow because your plan is old. {mobile} gives you more for {price}, ring {phone}
The sea, a bed, {food} every night: {sum} for two if you say yes by {time}. Text SEA to {short}
We count the people who still drink milk. Do you? {few} easy questions and {price} is yours {link}
psst. same watch as in the window of the big shop, {off} cheaper. dont ask. {link}
Free coffee for a year! Just leave your name, street, birthday and card at {link}
Is your roof dry? {name} climbs up and looks for free. Then it costs {sum}. Book on {phone}
Shoes, shoes, shoes! Two pairs for {price}, the third foot is free {laugh} {link}
""",
    # Spam in slippers: calm, lower case, friendly, often without any link.
    "tricky: the fake relative": """
hi mum, this is my new number, my phone broke. can you text me back here? {love}
hi dad its me, i lost my phone and need to pay {sum} today, can you help? i pay you back on {day}
hello grandma, i am in trouble and need {sum} in cash. please do not tell {kin}, i will explain
    later
mum i cant log in to my bank on this phone, could you pay a bill for me? its urgent {love}
its {name} from school, writing from a friend's phone. can you get me {few} gift cards? send the
    codes
{kin} is in hospital and we need {sum} now, send it to this account, i cant talk
hey its me, new phone. did you get my message? please send me the code that comes to your phone
i am at the airport without my wallet, could you send {sum} to this number? {name}
dad can you ring this number, not the old one. its about the rent and please dont be cross {love}
auntie its {name}, i fell off my bike and the doctor wants {sum} before he looks at my arm
mum my card is stuck in the machine at the {place}. can you send {price} to {name}'s account for the
    bus?
grandpa guess who this is! yes, right. listen, i found a flat but they want {sum} by {time}
its me. they are listening so just text. could you buy a phone card and read me the numbers {love}
{hi} mum, dropped my phone in the bath {laugh} this is {name}'s. whats the code for our bank again
i did something silly and now a man wants {sum}. not a word to dad. i bring it back on {day}
mum its urgent, the police have my {gadget}. {sum} and they let me go home, please hurry
your cousin {name} here, from far away. i am coming to visit, can you lend me {sum} for the ticket?
grandma please go to the bank for me today, my friend {name} will come by for the money at {time}
still at work love, and i forgot to pay the heating man. send him {sum} on {phone}? kiss
happy birthday mum! your present is at the post, it only needs your card number, send it here x
""",
    "tricky: the false friend": """
{hi}, is this {name}? i found your number in my old phone, how are you? i am new in town
{hi} {name}, it was so nice to meet you at the {show}. did you look at that investment i told you
    about?
sorry, wrong number! but you seem kind. i am {name}, i trade {coin}, what do you do?
hey {name}, i made {sum} this week with a little app, ask me how {end}
is this you in the video?? {link} {laugh}
i voted for you, now please vote for me too: {link} you only need your password
{name}, guess who has a crush on you? somebody you know! text me on {short} to find out
remember me from {sport}? i am helping a few friends earn some money from home, are {you} free to
    talk?
hey, are we still on for dinner {day}? oh sorry, wrong person. you sound nice, lets chat: {phone}
look at these photos of you from {day} {laugh} {link}
{name} gave me your number, hope that is ok! she said you might want to earn a bit with me on {day}
long time! i live by the sea now, thanks to one page i read: {link} how are the kids?
are you at home? i am stuck at the {place} and they only take gift cards. tell you later {laugh}
i wrote to you last week but got no answer. did i say something wrong? it is {girl}, from the train
we went to school together, you sat behind me. i sell insurance now, can i come round on {day}?
can you help me quickly? i sent my code to your number by mistake, six numbers, send it on please
your sister said you want a cheap {gadget}. my friend has one that fell off a train, {price}, cash
i had a dream about you and {coin}. both were going up. coffee?
someone is saying bad things about you here {link} thought you should know. {name}
oh no i sent {sum} to your account and it was for {name}! could you just send it back to me?
hi love, is the {pet} better? ah, this is not {name}? well, we may as well talk. what do you do all
    day?
{name} here, i lost everybody's number. who is this? and do you still have that account with {bank}?
""",
    "tricky: the polite stranger": """
good morning. we are looking for a few people to work from home on {day} evenings. shall i tell
    you more?
dear friend, my late uncle left {riches} and i need an honest person to keep it in an account for
    me.
hello, i am {name} from the lottery office. we would like to give you your money. please send your
    name.
good day, i would like to buy your {gadget}. please send your bank details and i will pay at once.
we are sorry to bother you. your loan request was accepted and the money can be with you on {day}.
hello, my name is {name} and i sell homes in the sun. may i ring you at {time} to talk about one?
hi, we visited your street last week about new windows. there is still time for a good price,
    shall i call?
i am a doctor far away and i have thought about you. i would like to send you a present. please
    reply.
excuse me for writing. i found a wallet with your name in it. to send it back i need {price} for the
    post
sir or madam, my ship is in and {riches} is on it. it needs a friend on land. are you one?
i paint pictures of {pet}s. may i paint yours? i only need a photo, and {price} for the paint
we are a small church with a big hole in the roof. anything helps, {price} helps more: {link}
good evening, i was a soldier and may soon go home. i have a box of gold and nobody to leave it
    with.
your family name is also that of a rich man who died on {day}. may we talk about his {riches}?
my daughter is selling biscuits for her school. she cannot come to your door but this page can
    {link}
thank you for your kind words last year. as you wished, we ring about your old age on {day} at
    {clock}.
may i ask, is the house on your street for sale? i pay {riches} in cash if you show me the papers
hello dear, you do not know me. i am old, i have no children and a large garden. please write to me.
we would be happy to put you in our book of important people. your page is ready, it costs {sum}.
i am learning your language. would you write with me? i can pay, my bank only needs to know yours.
""",
    "tricky: the quiet firm": """
{hi} {name}, thank you for your order of a {gadget} for {sum}. if you did not order it, ring
    {phone}
{bank}: please ring us on {phone} about a payment to {name}. this is a free call.
{post}: hello, is your house number {house} or {house}? please reply so that we can deliver your
    parcel today.
your appointment for the free house check is on {day} at {clock}. please have your bank card ready.
hello from {mobile}, we are changing your plan on {day}. to keep your number, reply with your code.
{shop}: we would like to know how your visit was. it takes {few} minutes and there is a small
    thank you {link}
dear parent, the school trip is not paid yet. please send {price} to the new account today. the
    office
hi its {name} from the bank. i see a strange payment. read me the code we just sent you please.
it's your boss. i am in a meeting and need {few} gift cards for a client. buy them now, i pay you
    back
your neighbours at number {house} saved {off} on heating. we are in your street on {day},
    shall we come by?
{bank}: {name} will come to your home on {day} to take your old card. please have its code ready.
this is the gas man. we come to the {room} at {clock}. the bill of {price} can be paid at the door.
{shop}: your basket is still waiting for you. we kept the {gadget} at {price} until tonight. {link}
{mobile}: a voice message of {mins} seconds from {name}. listen at {link}
Valley Clinic: your test is back. to see it please log in with your bank: {link}
{post} asks: were you happy with {name}, our driver? give {few} stars and a present is yours. {link}
the owner of your flat has moved to {bank}. please send the rent of {sum} there. new number on
    {phone}
hello, it is the school. {name} has a fever and the doctor must be paid first, {price}, on this page
    {link}
library: your book is late by {few} years. the cost is {fee}. you can pay from your chair: {link}
{hi} {name}, the water in your street will be tested on {day}. our man needs {price} and a glass.
your garage here, not urgent but the {sum} for the tyres is not in yet, could you pay it to our new
    bank? {phone}
as every year, your name stays in the town phone book. that is {sum}. to stop it, write before
    {day}.
computer help desk: we see that your {gadget} is ill. stay on {link} and {name} will take over.
""",
}

# --- from patterns to messages -------------------------------------------------------------------

# Texts are free, labels are work. A pattern's split says how many *messages* it gives; among the
# patterns of spam, which are what the test is about, test and validation get more than their share
# of messages, so that what a few patterns happen to be like matters less. "unlabelled" is only read
# in pretraining (do not learn from its labels). Neighbours, the tricky ones too, meet all four.
DEAL = {
    "ham": ("unlabelled", "train", "test", "unlabelled", "unlabelled",
            "val", "train", "test", "unlabelled", "unlabelled"),
    "spam": ("unlabelled", "test", "train", "val", "test", "unlabelled", "train",
             "test", "unlabelled", "val", "test", "train", "unlabelled"),
}  # fmt: skip
# Luck of the deal: over the seeds 1 to 24 a naive Bayes on words gets 71-87% of the test (mean 79%)
# and a spam F1 of 0.45-0.65 (mean 0.54). Seed 10, with 84% and 0.61, is kinder to it than most.
DEAL_SEED = 10
SHARE = {"train": 0.2, "unlabelled": 0.5, "val": 0.1, "test": 0.2}
TOTALS = {"ham": 3440, "spam": 560}  # 14% spam, about what a real phone gets
MAX_CHARACTERS = 160  # one SMS
# How people (and spammers) type: (all lower case and no final full stop, ALL CAPITALS).
HABITS = {"ham": (0.3, 0.02), "spam": (0.15, 0.05)}


@dataclass(frozen=True)
class Pattern:
    """One hand-written pattern: its text, class, situation and split."""

    text: str
    label: str
    situation: str
    split: str


def _deal_patterns() -> list[Pattern]:
    """All patterns with splits: shuffled within a situation (DEAL_SEED), then dealt by DEAL."""
    rng = random.Random(DEAL_SEED)
    patterns = []
    for label, catalogue in (("ham", HAM), ("spam", SPAM)):
        place = 0
        for situation, block in catalogue.items():
            lines = re.sub(r"\n +", " ", block).strip().splitlines()
            rng.shuffle(lines)
            for line in lines:
                patterns.append(
                    Pattern(line, label, situation, DEAL[label][place % len(DEAL[label])])
                )
                place += 1
    return patterns


PATTERNS: list[Pattern] = _deal_patterns()


def fill(pattern: str, rng: random.Random) -> str:
    """One message from a pattern: choices, then blanks, then digits, then tidy spaces.

    A slot that occurs twice gets two different values. A slot that is not in SLOTS: KeyError.
    """
    text = re.sub(r"\[([^]]*)\]", lambda match: rng.choice(match[1].split("|")), pattern)
    used: set[str] = set()

    def value(match: re.Match) -> str:
        choice = rng.choice([value for value in SLOTS[match[1]] if value not in used])
        used.add(choice)
        return choice

    text = re.sub(r"\{(\w+)\}", value, text)
    text = re.sub("#", lambda _: str(rng.randrange(10)), text)
    return re.sub(r" +", " ", text).strip()


def make_messages(seed: int = 7) -> list[dict[str, str]]:
    """The whole data set: dicts with label (ham, spam), text, and split (a key of SHARE).

    The seed changes fills, typing habits and order; a pattern's split never changes. Patterns of
    one class and split take turns until the quota is full; a turn with nothing new to say after
    40 tries is dropped. Too few patterns for a quota: ValueError. No text occurs twice, capitals
    aside.
    """
    rng = random.Random(seed)
    messages, seen = [], set()
    for label, total in TOTALS.items():
        for split, share in SHARE.items():
            quota = round(total * share)
            turn = [p for p in PATTERNS if (p.label, p.split) == (label, split)]
            if label == "ham":  # honest messages that look like spam are rarer: half the turns
                turn += [p for p in turn if not p.situation.startswith("tricky")]
            while quota:
                if not turn:
                    raise ValueError(f"{label}/{split}: {quota} short; write more patterns")
                pattern = turn.pop(0)
                text = _new_text(pattern, rng, seen)
                if text is None:
                    continue
                messages.append({"label": label, "text": text, "split": split})
                quota -= 1
                turn.append(pattern)
    rng.shuffle(messages)
    return messages


def _new_text(pattern: Pattern, rng: random.Random, seen: set[str]) -> str | None:
    """A message of this pattern that is not in `seen` (and is then), or None after 40 tries."""
    lower, upper = HABITS[pattern.label]
    for _ in range(40):
        text, habit = fill(pattern.text, rng), rng.random()
        if habit < lower:
            text = text.lower().removesuffix(".").rstrip()
        elif habit > 1 - upper:
            text = text.upper()
        if 2 <= len(text) <= MAX_CHARACTERS and text.lower() not in seen:
            seen.add(text.lower())
            return text
    return None


def to_regex(pattern: str) -> re.Pattern:
    """The regular expression of everything `fill` and the typing habits can make of a pattern."""

    def piece(match: re.Match) -> str:
        token = match[0]
        if token.startswith("["):
            return "(?:" + "|".join(translate(choice) for choice in token[1:-1].split("|")) + ")"
        if token.startswith("{"):
            return "(?:" + "|".join(translate(value) for value in SLOTS[token[1:-1]]) + ")"
        return {"#": r"\d", " ": " *"}.get(token) or re.escape(token)

    def translate(text: str) -> str:
        return re.sub(r"\[[^]]*\]|\{\w+\}|.", piece, text, flags=re.DOTALL)

    return re.compile(translate(pattern.removesuffix(".")) + r"\.?", re.IGNORECASE)


def pattern_of(text: str) -> list[int]:
    """The numbers (places in PATTERNS) of all patterns that could have made this text."""
    return [number for number, regex in enumerate(_regexes()) if regex.fullmatch(text)]


@cache
def _regexes() -> list[re.Pattern]:
    return [to_regex(pattern.text) for pattern in PATTERNS]
